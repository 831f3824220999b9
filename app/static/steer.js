// What follows the faders: the text still to come, the expected rewards, the drawer. app/steer.py answers, one question
// at a time and always the newest; not as an event of Gradio's, whose page copies the state of its components at each.
mixdesk.steer = (() => {
  const FAILED = '<span class="message bad">The faders were not heard: the server cannot be reached. Move one again.</span>';
  let server, trigger, last = null, newest = null, busy = false, sentence = "";

  const say = (text) => {
    sentence = text;
    trigger("submit");
  };
  const note = async (now) => {
    last = newest = now;
    if (busy || !server) return;
    busy = true;
    try {
      while (newest) {
        const asked = newest;
        newest = null;
        const { expected, drawer, said } = await server.follow(asked).catch(() => ({ said: FAILED }));
        if (expected) steer.expected(expected);
        if (drawer !== undefined) steer.drawer(drawer);
        if (said) say(said);
      }
    } finally {
      busy = false;
    }
  };

  // expected and drawer: handed in by what shows them
  const steer = {
    begin: (asked, fire) => {
      [server, trigger] = [asked, fire];
      if (newest) note(newest);
    },
    note,
    again: () => { if (last) note(last); },
    said: () => sentence,
  };
  return steer;
})();
