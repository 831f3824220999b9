// Around the faders: Lock, Solo and Mute, and Undo and Redo over all that makes the mixture.
mixdesk.mixer = (() => {
  const MARKS = {
    solo: ["Solo", "S", "only what is soloed is heard"],
    mute: ["Mute", "M", "silent, wherever its fader is"],
    lock: ["Lock", "L", "its weight stays, the others share the rest"],
  };
  const KEYS = { s: "solo", m: "mute", l: "lock" };
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
  const policies = () => [...document.querySelectorAll("[data-share]")].map((output) => output.dataset.policy);
  // What comes from the page's components: the faders, then the channels, then what else is undone.
  const read = (now) => {
    const names = policies();
    const { solo = [], mute = [], lock = {} } = JSON.parse(now[names.length] || "{}");
    return { names, faders: now.slice(0, names.length).map(Number), solo, mute, lock };
  };

  // As Channels.weights in app/schemas/solo_mute_lock.py has it.
  const weights = ({ names, faders, solo, mute, lock }) => {
    const heard = names.map((name) => !mute.includes(name) && (!solo.length || solo.includes(name)));
    const locked = names.map((name, i) => heard[i] && name in lock);
    if (!locked.includes(true)) return faders.map((fader, i) => (heard[i] ? fader : 0));
    const left = Math.max(0, 1 - sum(names.map((name, i) => (locked[i] ? lock[name] : 0))));
    const free = faders.map((fader, i) => (heard[i] && !locked[i] ? fader : 0));
    const total = sum(free);
    return names.map((name, i) => (locked[i] ? lock[name] : total ? (left * free[i]) / total : 0));
  };

  let marked = ""; // what the buttons show
  const show = (now) => {
    const state = read(now);
    const { names, solo, mute, lock } = state;
    mixdesk.target.heard(now);
    mixdesk.showShares(weights(state));
    const marks = JSON.stringify([solo, mute, lock]);
    if (marks === marked) return;
    marked = marks;
    names.forEach((name, i) => {
      const pressed = { solo: solo.includes(name), mute: mute.includes(name), lock: name in lock };
      for (const [mark, [word, key, what]] of Object.entries(MARKS)) {
        const button = document.getElementById(`${mark}-${i}`);
        button.ariaPressed = pressed[mark];
        button.ariaLabel = `${word} ${name}`;
        button.title = `${word} ${name}: ${what} (${key} on its fader)`;
      }
      const fader = document.getElementById(`fader-${i}`);
      fader.closest(".fader").classList.toggle("silent", pressed.mute || (solo.length > 0 && !pressed.solo));
      fader.querySelectorAll("input").forEach((input) => { input.disabled = pressed.lock; });
    });
  };

  // Fader positions after something else than a hand moved them: what is locked stays.
  const placed = (now, positions) => {
    const { names, faders, lock } = read(now);
    return names.map((name, i) => (name in lock ? faders[i] : positions[i]));
  };
  const even = (now) => placed(now, policies().map(() => 0.5));

  const toggle = (mark, i, now) => {
    const { names, faders, solo, mute, lock } = read(now);
    const name = names[i];
    const channels = { solo, mute, lock: { ...lock } };
    const without = (list) => list.filter((other) => other !== name);
    let positions = faders;
    if (mark !== "lock") {
      const list = channels[mark];
      channels[mark] = list.includes(name) ? without(list) : [...list, name];
    } else {
      // Of all policies, heard or not: a fader may be locked before it is heard again.
      const whole = weights({ names, faders, solo: [], mute: [], lock });
      const total = sum(whole) || 1;
      if (name in lock) {
        delete channels.lock[name];
        positions = unlocked(names, faders, whole, channels.lock, i);
      } else {
        channels.lock[name] = Math.round((1e6 * whole[i]) / total) / 1e6;
      }
    }
    return [...positions, JSON.stringify(channels)];
  };

  // Positions with which the free faders have the weights that they had while the i-th was locked. The others stay where
  // they are, as far as there is room above.
  const unlocked = (names, faders, whole, lock, i) => {
    const free = names.map((name) => !(name in lock));
    const others = names.map((_, j) => free[j] && j !== i);
    const moved = sum(faders.filter((_, j) => others[j]));
    const weighed = sum(whole.filter((_, j) => others[j]));
    const highest = Math.max(...whole.filter((_, j) => free[j]));
    if (!highest) return faders;
    const scale = Math.min(weighed ? moved / weighed : Infinity, 1 / highest);
    return faders.map((fader, j) => (free[j] ? Math.round(100 * scale * whole[j]) / 100 : fader));
  };

  // ------------------------------------------------------------------------------------------- Undo and Redo
  const LONGEST = 200; // steps
  const PAUSE = 400; // ms without a change that end a gesture, when no pointer is held down
  let steps = [], at = 0, latest = null, timer = 0, held = false, waiting = false;
  let now = null, asking = false, due = false; // what all of them have; whether that is to be asked, and to be shown
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

  const mark = () => {
    document.getElementById("undo").ariaDisabled = at === 0;
    document.getElementById("redo").ariaDisabled = at >= steps.length - 1;
  };
  const commit = (now) => {
    clearTimeout(timer);
    latest = null;
    if (!steps.length || !now || same(now, steps[at])) return;
    steps = [...steps.slice(0, at + 1), now].slice(-LONGEST);
    at = steps.length - 1;
    mark();
  };
  const settle = () => {
    clearTimeout(timer);
    timer = setTimeout(() => { if (!held && !waiting) commit(latest); }, PAUSE);
  };
  // Of all that makes the mixture, faders, channels, rule, gain and exponent, the i-th has this value. What moves at
  // once is one question, asked without waiting for the screen, and is shown once, when the screen is drawn anyway.
  const moved = (i, value, ask = soon) => {
    if (!now || now[i] === value) return; // it is among what the page begins with, or was heard of already
    now = now.map((old, j) => (j === i ? value : old));
    latest = now;
    ask();
    if (due) return;
    due = true;
    if (document.hidden) setTimeout(note);
    else requestAnimationFrame(note);
  };
  const ask = () => {
    asking = false;
    mixdesk.steer.note(now);
  };
  const soon = () => {
    if (!asking) setTimeout(ask);
    asking = true;
  };
  const note = () => {
    due = false;
    show(now.slice(0, -3));
    mixdesk.target.note(now);
    settle();
  };
  // A gesture that the server answers goes on until the answer is there.
  const hold = (value) => {
    waiting = value;
    settle();
  };
  const begin = (values) => {
    now = values;
    steps = [now];
    at = 0;
    ask();
    note();
    mark();
  };
  const step = (by, now) => {
    commit(now);
    at = Math.min(Math.max(at + by, 0), steps.length - 1);
    mark();
    return steps[at];
  };

  // A hand moves one fader. Gradio tells of it, but only when the screen has been drawn.
  document.addEventListener("input", ({ target }) => {
    const [, i] = (target.type === "range" && target.closest(".fader [id^='fader-']")?.id.match(/^fader-(\d+)$/)) || [];
    if (i) moved(Number(i), Number(target.value), ask);
  }, true);

  // A new gesture ends the one before, however short the pause was.
  document.addEventListener("pointerdown", () => { commit(latest); held = true; }, true);
  // A button that a key presses has no pointer.
  document.addEventListener("click", () => { if (!waiting) commit(latest); }, true);
  for (const end of ["pointerup", "pointercancel"]) {
    document.addEventListener(end, () => { held = false; settle(); }, true);
  }

  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.altKey || mixdesk.typing(event.target)) return;
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      const redo = (key === "z" && event.shiftKey) || (key === "y" && !event.shiftKey);
      if (!redo && key !== "z") return;
      event.preventDefault();
      mixdesk.press(redo ? "redo" : "undo");
      return;
    }
    const fader = event.target.closest(".fader");
    if (!fader || !KEYS[key] || event.repeat) return;
    event.preventDefault();
    fader.querySelector(`.mark-${KEYS[key]}`).click();
  });

  return { begin, even, hold, moved, placed, show, step, toggle };
})();
