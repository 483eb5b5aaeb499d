"use strict";
/* Which trials a rater sees, and in which order: a pure function of the study and a seed. */

const Trials = (() => {
  /** Uniform numbers in [0, 1) from a seed (mulberry32): the same ones after a reload. */
  function generator(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = state;
      t = Math.imul(t ^ (t >>> 15), t | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  function shuffled(items, random) {
    const out = [...items];
    for (let i = out.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  }

  /** Two models' results of one input, their sides drawn. */
  function pairOf(picture, models, random) {
    const [left, right] = shuffled(models, random);
    return {
      kind: "pair", picture: picture.name, input: picture.input, left, right,
      leftFile: picture.results[left], rightFile: picture.results[right],
    };
  }

  function swapped(trial) {
    return {
      ...trial, kind: "repeat", left: trial.right, right: trial.left,
      leftFile: trial.rightFile, rightFile: trial.leftFile,
    };
  }

  /** The input against a degraded input: who looks, knows. */
  function catchOf(picture, random) {
    const files = { input: picture.input, degraded: picture.degraded };
    const [left, right] = shuffled(Object.keys(files), random);
    return {
      kind: "catch", picture: picture.name, input: picture.input, left, right,
      leftFile: files[left], rightFile: files[right],
    };
  }

  /**
   * All trials of a rater.
   *
   * Each round has every pair of models once, on pictures drawn without return; a study with
   * fewer trials than there are shows the first rounds, so that pairs come equally often.
   */
  function schedule(study, seed) {
    const random = generator(seed);
    const pairs = [];
    study.models.forEach((a, i) => study.models.slice(i + 1).forEach((b) => pairs.push([a, b])));
    const decks = pairs.map(() => shuffled(study.pictures, random));
    let trials = [];
    for (let round = 0; round < study.pictures.length; round++) {
      for (const p of shuffled([...pairs.keys()], random)) {
        trials.push(pairOf(decks[p][round], pairs[p], random));
      }
    }
    trials = trials.slice(0, study.trials ?? trials.length);

    // Repeated ones are of the first half, and come in the second.
    const half = Math.floor(trials.length / 2);
    const repeats = shuffled(trials.slice(0, half), random).slice(0, study.repeats).map(swapped);
    for (const trial of repeats) {
      const place = half + Math.floor(random() * (trials.length - half + 1));
      trials.splice(place, 0, trial);
    }
    if (study.catch_every) {
      const checks = Math.floor(trials.length / study.catch_every);
      for (let i = checks - 1; i >= 0; i--) {
        const place = i * study.catch_every + Math.floor(random() * study.catch_every);
        const picture = study.pictures[Math.floor(random() * study.pictures.length)];
        trials.splice(place, 0, catchOf(picture, random));
      }
    }
    return trials;
  }

  return { schedule };
})();
