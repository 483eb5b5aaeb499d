"use strict";
/* From the first screen to the last. */

(() => {
  const $ = (id) => document.getElementById(id);
  const study = STUDY;
  const panes = $("panes");
  const images = {
    left: document.querySelector("#left img"),
    input: document.querySelector("#input img"),
    right: document.querySelector("#right img"),
  };
  let session = null;
  let saved = false; // on the server
  let trials = [];
  let appeared = null; // when the pictures of a trial did; null: nothing can be picked yet
  let turn = 0; // of showing: what was asked for before does not count when it arrives

  document.title = study.title;
  for (const heading of document.querySelectorAll(".title")) heading.textContent = study.title;

  function show(screen) {
    for (const id of ["start", "trial", "end"]) $(id).hidden = id !== screen;
  }

  // ---- start

  function start() {
    const count = Trials.schedule(study, 0).length;
    $("count").textContent = count;
    $("kept").replaceChildren(...Picks.kept(study).map((kept) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = kept.picks.length >= count
        ? `The picks of ${kept.rater}`
        : `Go on as ${kept.rater} (${kept.picks.length} of ${count})`;
      button.onclick = () => run(kept);
      return button;
    }));
    show("start");
    $("rater").focus();
  }

  $("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = new URLSearchParams(location.search).get("seed");
    const drawn = crypto.getRandomValues(new Uint32Array(1))[0];
    run(Picks.begin(study, $("rater").value, given === null ? drawn : Number(given) >>> 0));
  });

  // ---- trials

  function run(begun) {
    session = begun;
    saved = false;
    trials = Trials.schedule(study, session.seed);
    show("trial");
    Zoom.reset();
    if (session.picks.length) save(); // what a server has missed of them
    next();
  }

  async function next() {
    const index = session.picks.length;
    const mine = ++turn;
    appeared = null;
    $("progress").textContent = `${Math.min(index + 1, trials.length)} of ${trials.length}`;
    $("bar").setAttribute("aria-valuemax", trials.length);
    $("bar").setAttribute("aria-valuenow", index);
    $("bar").firstElementChild.style.width = `${(100 * index) / trials.length}%`;
    if (index >= trials.length) return finish();
    const trial = trials[index];
    panes.classList.add("waiting");
    panes.classList.remove("showing-input");
    const files = { left: trial.leftFile, input: trial.input, right: trial.rightFile };
    try {
      await Promise.all(Object.entries(files).map(([place, file]) => {
        images[place].src = file;
        return images[place].decode();
      }));
    } catch {
      if (mine === turn) $("saved").textContent = "A picture cannot be loaded; reload the page.";
      return;
    }
    if (mine !== turn) return;
    for (const figure of document.querySelectorAll(".picked")) figure.classList.remove("picked");
    Zoom.reset();
    panes.classList.remove("waiting");
    appeared = performance.now();
    preload(trials[index + 1]);
  }

  function preload(trial) {
    if (!trial) return;
    for (const file of [trial.leftFile, trial.input, trial.rightFile]) new Image().src = file;
  }

  function pick(side) {
    if (appeared === null) return;
    const trial = trials[session.picks.length];
    session.picks.push({
      trial: session.picks.length + 1,
      kind: trial.kind,
      picture: trial.picture,
      left: trial.left,
      right: trial.right,
      pick: side,
      milliseconds: Math.round(performance.now() - appeared),
    });
    appeared = null;
    save();
    $(side).classList.add("picked");
    setTimeout(next, 150); // long enough to see which one it was
  }

  function back() {
    if (appeared === null || !session.picks.length) return;
    session.picks.pop();
    save();
    next();
  }

  function save() {
    const kept = Picks.keep(study, session);
    saved = false;
    Picks.send(session, (sent) => {
      saved = sent === true;
      const where = sent === false
        ? "not saved on a server: download the picks at the end"
        : kept || sent ? "" : "this browser keeps nothing: do not reload the page";
      $("saved").textContent = where;
      $("ended").textContent = sent ? "They are saved on the server." : where;
    });
  }

  /** Both results become the input, as long as the key is held. */
  function showInput(on) {
    if (appeared === null && on) return;
    const trial = trials[session.picks.length];
    if (!trial || panes.classList.contains("showing-input") === on) return;
    panes.classList.toggle("showing-input", on);
    images.left.src = on ? trial.input : trial.leftFile;
    images.right.src = on ? trial.input : trial.rightFile;
  }

  // ---- end

  function finish() {
    $("summary").textContent =
      `${session.rater}: ${session.picks.length} of ${trials.length} picks are done.`;
    if (!$("ended").textContent && !location.protocol.startsWith("http")) {
      $("ended").textContent = "Download them and hand the file to whoever asked you.";
    }
    show("end");
    $("json").focus();
  }

  const name = (suffix) => `picks-${session.session}.${suffix}`;
  $("json").onclick = () => Picks.download(name("json"), Picks.toJson(session), "application/json");
  $("csv").onclick = () => Picks.download(name("csv"), Picks.toCsv(session), "text/csv");
  $("again").onclick = () => {
    if (saved) Picks.forget(study, session); // else they stay here, beside the next rater's
    $("rater").value = "";
    $("ended").textContent = "";
    start();
  };

  // ---- keys and buttons

  const KEYS = {
    ArrowLeft: () => pick("left"), f: () => pick("left"),
    ArrowRight: () => pick("right"), j: () => pick("right"),
    "+": () => Zoom.by(1.5), "=": () => Zoom.by(1.5), "-": () => Zoom.by(1 / 1.5),
    0: Zoom.reset, z: Zoom.toggle, Backspace: back, " ": () => showInput(true),
  };
  addEventListener("keydown", (event) => {
    if ($("trial").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    const repeats = ["+", "=", "-"].includes(event.key);
    if (!event.repeat || repeats) action(); // a key that is held down picks once
  });
  addEventListener("keyup", (event) => {
    if ($("trial").hidden || event.key !== " ") return;
    event.preventDefault(); // it would press a button that has the focus
    showInput(false);
  });
  addEventListener("blur", () => { if (!$("trial").hidden) showInput(false); });
  for (const button of document.querySelectorAll("[data-side]")) {
    button.addEventListener("click", () => {
      button.blur();
      pick(button.dataset.side);
    });
  }

  Zoom.lock(document.querySelectorAll(".pane"), (scale) => {
    $("scale").textContent = `${Math.round(100 * scale)} %`;
  });
  start();
})();
