// Links and the clipboard.
mixdesk.sharing = (() => {
  const MARK = "#mix=";
  // Only handed on: the server reads it, and says what is wrong with it.
  const arriving = () => (location.hash.startsWith(MARK) ? location.hash.slice(MARK.length) : "");
  const open = () => { if (arriving()) document.getElementById("link-arrived").click(); };
  window.addEventListener("hashchange", open);

  // Returns what the box for pages without a clipboard shows, and the status line.
  const copy = async (made, said, copied, refused) => {
    const hidden = { __type__: "update", visible: false };
    if (!made) return [hidden, said];
    const text = made.startsWith(MARK) ? location.href.split("#")[0] + made : made;
    try {
      await navigator.clipboard.writeText(text);
      return [hidden, copied];
    } catch {
      // Pages served over plain http from another machine have no clipboard.
      return [{ __type__: "update", visible: true, value: text }, refused];
    }
  };
  return { arriving, copy, open };
})();
