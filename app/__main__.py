"""Command line of the web app: `python -m app` serves it, `export` writes ratings to a file, `import` reads votes."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

if not __package__:
    # Hugging Face Spaces runs this file by its path: what is imported is beside its folder, not in it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

# Read when gradio is imported; the other when it makes a page: else unused statistics are computed at the
# end of every event, from the last 10,000.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")

import typer

from engine.cli.runner import print_json, run
from engine.errors import InputError
from engine.listening import bind_address

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Db = Annotated[Path, typer.Option(envvar="MIXDESK_DB", help="The SQLite file with the ratings.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


@cli.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            envvar="MIXDESK_CONFIG",
            help="A YAML configuration; if none, one that was fetched, else the bundled demo. "
            "Several are offered in the page's menu.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(envvar="GRADIO_SERVER_NAME", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar=["GRADIO_SERVER_PORT", "PORT"], min=1, max=65535, help="The port.")
    ] = 7860,
    db: Annotated[
        Path | None, typer.Option(envvar="MIXDESK_DB", help="The SQLite file with the ratings; mixdesk.db if none.")
    ] = None,
    loaded: Annotated[
        int, typer.Option(envvar="MIXDESK_LOADED", min=1, help="How many configurations are in memory at once.")
    ] = 2,
    root_path: Annotated[
        str, typer.Option(envvar="GRADIO_ROOT_PATH", help="Where a proxy shows the app: /mixdesk, or a whole URL.")
    ] = "",
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(envvar="MIXDESK_ALLOWED_HOSTS", help="A host name by which the app is reached; repeatable."),
    ] = None,
    trust_proxy: Annotated[
        bool,
        typer.Option(
            "--trust-proxy", envvar="MIXDESK_TRUST_PROXY", help="Take X-Forwarded-For, -Host and -Proto from a proxy."
        ),
    ] = False,
    owner_token: Annotated[
        str, typer.Option(envvar="MIXDESK_OWNER_TOKEN", help="A secret: who opens /?owner=SECRET is the owner.")
    ] = "",
    owner: Annotated[
        list[str] | None,
        typer.Option(envvar="MIXDESK_OWNERS", help="A Hugging Face user who is the owner by signing in; repeatable."),
    ] = None,
    remote: Annotated[
        str,
        typer.Option(
            "--engine",
            envvar="MIXDESK_ENGINE",
            help="The address of an engine on another machine (python -m engine serve); a key in MIXDESK_ENGINE_KEY.",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Start the web app."""
    if context.invoked_subcommand is not None:
        return
    if remote and config:
        raise InputError("--engine: the configuration is that engine's; leave --config and MIXDESK_CONFIG out")
    from app.server.access import describe_access, find_access, split_host
    from app.server.sign_in_options import find_sign_in
    from engine.api.keys import ApiKeys

    signing_in = find_sign_in(owner or ())
    owners = signing_in.owners if signing_in else ()
    access = find_access(host, root_path, allowed_host or (), trust_proxy, owner_token, owners=owners)
    keys = ApiKeys.read(local=not access.hosted)
    listener = bind_address(host, port)
    from app.server.startup_page import answering
    from engine.shutdown import ending_at_once

    with ending_at_once(), answering(listener, lambda name: access.allows_host(*split_host(name))) as report:
        # Of 800,000 objects that are imported one in seventy becomes garbage: to look through them again and again is
        # a fifth of the start's work. Frozen, they are not looked through later either, while a response is written.
        gc.disable()
        from app.server.gradio_import import import_gradio

        import_gradio()
        import uvicorn

        from app.server import zero
        from app.server.annotate import AnnotateRoutes
        from app.server.app import Site
        from app.server.configurations import Configurations, find, read
        from app.server.deployment import find_place
        from app.server.desk_app import web_app
        from app.server.engine_source import SiteEngines
        from app.server.guard import guarded
        from app.server.http_server import LATEST, LATEST_WITH_COPIES, HttpServer
        from app.server.patient_protocol import KEEP_ALIVE, MAX_HEADERS, PatientProtocol
        from app.server.study_downloads import study_routes
        from app.server.uploads import own_folder
        from app.services.app_state import Desk
        from app.services.policy_fetch import choose_first, fetch_first
        from app.services.visitor import is_owners
        from app.storage.database import Store
        from app.storage.hub_backup import Mirror
        from app.storage.saved_mixtures import SavedMixtures
        from app.storage.snapshots import Snapshots, restore
        from app.ui.page import build_page
        from engine import Engine
        from engine.api.health import health_routes
        from engine.api.metrics import metrics_routes
        from engine.api.routes import api_routes
        from engine.config import DEMO, Config
        from engine.fetching.manifest import manifest_of
        from engine.remote import RemoteEngine

        gc.freeze()
        gc.enable()  # before there are models: what is let go of while they are loaded may be large

        context.with_resource(own_folder())
        place = find_place(db)
        # First: a mistake in a configuration or address leaves no database behind.
        remote_engine = RemoteEngine(remote, os.environ.get("MIXDESK_ENGINE_KEY", ""), report) if remote else None
        first, *others = config or [choose_first()]
        files = [remote_engine.config.file] if remote_engine else find(first, others)
        if place.bucket and (restored := restore(place.db, place.bucket)):
            print(f"The database is that of {restored.name} in {place.bucket}.", file=sys.stderr)
        store = Store(place.db)
        snapshots = Snapshots(store.path, place.bucket) if place.bucket else None
        if config and (manifest := manifest_of(first)):
            fetch_first(manifest, report)
        on_cpu = zero.on_zero()
        mirror = Mirror(place.dataset, place.token) if place.dataset and place.token else None
        if place.warning:
            print(place.warning, file=sys.stderr)

        def open_desk(settings: Config, report: Callable[[str], None]) -> Desk:
            if on_cpu:
                settings.device = "cpu"
            return desk_of(Engine(settings, report))

        def desk_of(engine: Engine) -> Desk:
            return Desk(
                engine,
                store,
                mirror=mirror,
                warning=place.warning,
                hosted=access.hosted,
                sign_in=signing_in is not None,
            )

        try:
            desk = desk_of(remote_engine) if remote_engine else open_desk(read(files[0]), report)
        except InputError as error:
            if config or files[0] == DEMO:
                raise
            print(f"{error}; it starts with the bundled policies", file=sys.stderr)
            files = find(DEMO)
            desk = open_desk(read(DEMO), report)
        report("building its desk")
        configurations = Configurations(
            files,
            open_desk,
            lambda desk, menu, root: web_app(build_page(desk, menu), desk, root),
            loaded,
            root_path,
        )
        configurations.begin(desk)
        gc.freeze()  # the first desk, too, is here to stay
    threading.Thread(target=desk.warm_up, name="mixdesk-warm-up", daemon=True).start()
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    url = f"http://{shown}:{listener.getsockname()[1]}"
    say({"url": url, "db": str(store.path)} if as_json else f"Mixdesk is at {url} (Ctrl+C ends it)")
    for line in describe_access(access, host):
        print(line, file=sys.stderr)
    if on_cpu:
        zero.report()
    latest = LATEST_WITH_COPIES if mirror or snapshots else LATEST
    annotating = AnnotateRoutes(store, root_path, sign_in=signing_in is not None)
    source = SiteEngines(configurations, SavedMixtures(store))
    routes = [*study_routes(store), *annotating.routes(), *api_routes(source, keys)]
    routes += [*health_routes(source), *metrics_routes(source, keys, is_owners)]
    if signing_in:
        from app.server.sign_in import SignIn

        routes += SignIn(signing_in, root_path, annotating.join_signed_in).routes()
    settings = uvicorn.Config(
        guarded(Site(configurations, root_path, routes), access),
        http=PatientProtocol,
        log_level="warning",
        proxy_headers=False,  # app/server/allowed_hosts.py reads them
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=MAX_HEADERS,
    )
    HttpServer(settings, latest).run(sockets=[listener])
    if mirror:
        mirror.close()  # first: without a disk that stays, the copies are all that is left of the newest ratings
    if snapshots:
        snapshots.close()
    configurations.close()
    store.close()


@cli.command("export")
def export_ratings(
    out: Annotated[Path, typer.Option(help="The file to write; for dataset, a folder.")],
    form: Annotated[
        str,
        typer.Option("--format", help="trl (messages to prefer), kto (messages with a label), jsonl or csv."),
    ] = "trl",
    db: Db = Path("mixdesk.db"),
    study: Annotated[
        str,
        typer.Option(help="A study's id or name, whose votes are written. Its formats include parquet and dataset."),
    ] = "",
    names: Annotated[
        bool, typer.Option("--names", help="Of a study: annotators by their names instead of pseudonyms.")
    ] = False,
    per_vote: Annotated[
        bool, typer.Option("--per-vote", help="Of a study as trl or kto: each vote, not each pair's majority.")
    ] = False,
    push: Annotated[
        str, typer.Option(help="Of a study as dataset: push it to this dataset on the hub, with the token in HF_TOKEN.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Write the ratings of the desk, or the votes of a study, to a file."""
    if study:
        from app.storage.export_study import describe_export, export_study

        exported = export_study(db, study, form, out, names, per_vote, push)
        say(exported if as_json else describe_export(exported))
        return
    if names or per_vote or push:
        raise InputError("--names, --per-vote and --push are for the votes of a study; give --study its name")
    from app.storage.export import export_pairs as write

    written = write(db, form, out)
    say(written if as_json else f"{written['rows']} rows from {written['ratings']} ratings in {written['out']}")


@cli.command("import")
def import_study(
    file: Annotated[Path, typer.Argument(help="The file of votes: CSV, TSV, JSON lines or Parquet.")],
    name: Annotated[str, typer.Option(help="The name of the study.")],
    db: Db = Path("mixdesk.db"),
    column: Annotated[
        list[str] | None,
        typer.Option(help="item, prompt, left, right, winner, annotator or seconds, = and its column; repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Import votes that were made elsewhere, as a closed study."""
    from dataclasses import asdict

    from app.storage.import_votes import describe_import, import_file
    from app.storage.vote_file import named_columns

    imported = import_file(db, file, name, named_columns(column or ()))
    say(asdict(imported) if as_json else describe_import(imported))


def say(what: dict[str, Any] | str) -> None:
    """Print a message, or a dictionary as one JSON object, on stdout."""
    if isinstance(what, dict):
        print_json(what)
    else:
        print(what, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run(cli, "python -m app", arguments)


if __name__ == "__main__":
    sys.exit(main())
