"""The date in chat templates that write one."""

from __future__ import annotations

import json
from datetime import datetime

# What strftime knows, without the padding of some systems and with it.
DIRECTIVES = [f"%{one}" for one in ("-d", "-m", "-H", "-I", "-M", "-S", "-j", *"aAwdbBmyYHIpMSfjUWcxXGuVDFTR%")]


def frozen(template: str, date: datetime) -> str:
    """Return a template whose strftime_now returns this date.

    It is replaced by a macro, since transformers does not pass other callables to a template.
    """
    # Only those that it writes: a template with another text is compiled again.
    directives = [one for one in DIRECTIVES if one in template] or DIRECTIVES
    steps = "".join(f"|replace({json.dumps(one)}, {json.dumps(date.strftime(one))})" for one in directives)
    return f"{{% macro strftime_now(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}{template}"
