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

  function key(study) {
    return `latentiqa-${study.study}`;
  }

  /** Keep a session; false where the browser does not let us. */
  function keep(study, session) {
    try {
      localStorage.setItem(key(study), JSON.stringify(session));
      return true;
    } catch {
      return false;
    }
  }

  function kept(study) {
    try {
      return JSON.parse(localStorage.getItem(key(study)));
    } catch {
      return null;
    }
  }

  function forget(study) {
    try {
      localStorage.removeItem(key(study));
    } catch { /* nothing was kept */ }
  }

  const isServed = location.protocol.startsWith("http");
  let sending = Promise.resolve();

  /** Send a session to the server, one after the other: true, false, or null without a server. */
  function send(session) {
    if (!isServed) return Promise.resolve(null);
    const body = JSON.stringify(session);
    sending = sending.then(async () => {
      try {
        const answer = await fetch("picks", {
          method: "POST", headers: { "Content-Type": "application/json" }, body,
        });
        return answer.status === 204; // a static host answers everything with a page
      } catch {
        return false;
      }
    });
    return sending;
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
