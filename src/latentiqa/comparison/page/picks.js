"use strict";
/* Where picks are kept: in the browser until the end, on the server where there is one, in files. */

const Picks = (() => {
  const COLUMNS = ["study", "session", "rater", "trial", "kind", "picture", "left", "right", "pick",
    "milliseconds"];

  function begin(study, rater, seed) {
    const bytes = crypto.getRandomValues(new Uint8Array(8));
    const session = [...bytes].map((b) => b.toString(16).padStart(2, "0")).join("");
    const name = rater.trim() || `rater ${session.slice(0, 6)}`;
    return { kind: "latentiqa picks", study: study.study, session, rater: name, seed, picks: [] };
  }

  const prefix = (study) => `latentiqa-${study.study}-`;
  const key = (study, session) => prefix(study) + session.session;

  /** Keep a session beside those of other raters; false where the browser does not let us. */
  function keep(study, session) {
    try {
      localStorage.setItem(key(study, session), JSON.stringify(session));
      return true;
    } catch {
      return false;
    }
  }

  /** All sessions that are kept of a study, by the names of their raters. */
  function kept(study) {
    try {
      return Object.keys(localStorage)
        .filter((name) => name.startsWith(prefix(study)))
        .map((name) => JSON.parse(localStorage.getItem(name)))
        .filter((session) => session.picks.length)
        .sort((a, b) => a.rater.localeCompare(b.rater));
    } catch {
      return [];
    }
  }

  function forget(study, session) {
    try {
      localStorage.removeItem(key(study, session));
    } catch { /* nothing was kept */ }
  }

  const isServed = location.protocol.startsWith("http");
  const AGAIN = 3000; // milliseconds until what was not saved is sent again
  const unsent = new Map(); // the newest state of each session that the server does not have
  let sending = Promise.resolve();
  let timer = null;
  let hasAnswered = false; // a static host never does, and is not asked again and again

  /** Send a session to the server; tell({true, false, or null without a server}) after each try. */
  function send(session, tell) {
    if (!isServed) return tell(null);
    unsent.set(session.session, JSON.stringify(session));
    flush(tell);
  }

  function flush(tell) {
    clearTimeout(timer);
    sending = sending.then(async () => {
      for (const [name, body] of unsent) {
        if (!await post(body)) break;
        hasAnswered = true;
        if (unsent.get(name) === body) unsent.delete(name);
      }
      tell(unsent.size === 0);
      clearTimeout(timer);
      if (unsent.size && hasAnswered) timer = setTimeout(() => flush(tell), AGAIN);
    });
  }

  async function post(body) {
    try {
      const answer = await fetch("picks", {
        method: "POST", headers: { "Content-Type": "application/json" }, body,
      });
      return answer.status === 204; // a static host answers everything with a page
    } catch {
      return false;
    }
  }

  function toJson(session) {
    return JSON.stringify(session, null, 1) + "\n";
  }

  function toCsv(session) {
    const quoted = (value) => {
      const text = String(value);
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const rows = session.picks.map((pick) =>
      COLUMNS.map((column) => quoted(pick[column] ?? session[column])).join(","));
    return [COLUMNS.join(","), ...rows].join("\n") + "\n";
  }

  function download(name, text, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  return { begin, keep, kept, forget, send, toJson, toCsv, download };
})();
