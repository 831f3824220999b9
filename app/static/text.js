// The text of the responses as it is written: server-sent events of app/server/stream.py, which trace.js draws.
mixdesk.text = (() => {
  const LOST = "The text does not come through from the server. Press Generate to try again.";
  let source = null; // what is listened to
  let run = "", begun = 0; // whose text, and of how many responses
  let known = 0; // lines

  // stage: Run.stage
  const follow = (stage) => {
    const [id, count] = (stage || " 0").split(" ");
    if (id !== run) {
      source?.close();
      [source, run, known] = [null, id, 0];
      mixdesk.trace.begin();
      mixdesk.steer.again(); // whoever moved a fader since they pressed Generate
    }
    begun = Number(count);
    if (run && !source) listen();
  };
  const listen = () => {
    const mine = (source = new EventSource(`text/${run}?at=${known}`));
    mine.onmessage = ({ data, lastEventId }) => {
      known = Number(lastEventId);
      mixdesk.trace.read(JSON.parse(data));
    };
    mine.addEventListener("end", ({ data }) => {
      mine.close();
      source = null;
      if (begun > Number(data)) listen(); // one began when this had ended already
    });
    // A browser asks again by itself where a connection broke, but not where it was refused.
    mine.onerror = () => {
      if (mine.readyState === EventSource.CLOSED) mixdesk.trace.lost(LOST);
    };
  };

  return { follow, run: () => run };
})();
