// From ratings to the desk: a button has what it sends, and the desk takes it without asking the server.
mixdesk.ratings = (() => {
  let chosen = null;
  return {
    click: (event, trigger) => {
      const button = event.target.closest("[data-send]");
      if (!button) return;
      chosen = JSON.parse(button.dataset.send);
      trigger("select");
      document.getElementById("desk-tab-button").click();
    },
    // The faders but those that are locked, then rule, gain, exponent, and what is said.
    sent: (now) => [...mixdesk.mixer.placed(now, chosen.positions), chosen.rule, chosen.gain, chosen.exponent, chosen.said],
  };
})();
