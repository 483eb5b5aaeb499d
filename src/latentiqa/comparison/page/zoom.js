"use strict";
/* One view for all panes: where one is zoomed or moved, the others follow. */

const Zoom = (() => {
  const MOST = 16; // of the fitted size, at least; small pictures further, to see pixels
  const CRISP = 3; // from so many screen pixels a pixel on, edges between them are shown

  let panes = [];
  let onChange = () => {};
  // What stands in the middle of a pane, as a share of the picture, and the zoom: 1 is fitted.
  let view = { x: 0.5, y: 0.5, zoom: 1 };

  function sizes() {
    const image = panes[0].querySelector("img");
    const { clientWidth: width, clientHeight: height } = panes[0];
    const fitted = Math.min(width / image.naturalWidth, height / image.naturalHeight);
    return { image, width, height, fitted };
  }

  function draw() {
    const { image, width, height, fitted } = sizes();
    if (!image.naturalWidth || !width) return;
    const scale = fitted * view.zoom;
    const clamp = (centre, shown, whole) => {
      const half = Math.min(0.5, shown / whole / 2);
      return Math.min(1 - half, Math.max(half, centre));
    };
    view.x = clamp(view.x, width, image.naturalWidth * scale);
    view.y = clamp(view.y, height, image.naturalHeight * scale);
    const left = width / 2 - view.x * image.naturalWidth * scale;
    const top = height / 2 - view.y * image.naturalHeight * scale;
    for (const pane of panes) {
      for (const shown of pane.querySelectorAll("img")) {
        shown.style.transform = `translate(${left}px, ${top}px) scale(${scale})`;
        shown.style.imageRendering = scale * devicePixelRatio >= CRISP ? "pixelated" : "auto";
      }
    }
    onChange(scale * devicePixelRatio);
  }

  /** Zoom so many times more, around a point of a pane. */
  function by(factor, x, y) {
    const { image, width, height, fitted } = sizes();
    const before = fitted * view.zoom;
    const most = Math.max(MOST, 8 / fitted);
    view.zoom = Math.min(most, Math.max(1, view.zoom * factor));
    const after = fitted * view.zoom;
    // What was under the point stays there.
    const fromX = (x ?? width / 2) - width / 2;
    const fromY = (y ?? height / 2) - height / 2;
    view.x += (fromX / before - fromX / after) / image.naturalWidth;
    view.y += (fromY / before - fromY / after) / image.naturalHeight;
    draw();
  }

  function move(dx, dy) {
    const { image, fitted } = sizes();
    view.x -= dx / (fitted * view.zoom * image.naturalWidth);
    view.y -= dy / (fitted * view.zoom * image.naturalHeight);
    draw();
  }

  function reset() {
    view = { x: 0.5, y: 0.5, zoom: 1 };
    draw();
  }

  /** A pixel of the picture on a pixel of the screen, and back; fitted ones are twice as large. */
  function toggle() {
    if (view.zoom !== 1) return reset();
    const { fitted } = sizes();
    const exact = 1 / devicePixelRatio / fitted;
    by(exact > 1 ? exact : 2);
  }

  function lock(elements, changed) {
    panes = [...elements];
    onChange = changed;
    for (const pane of panes) {
      let last = null;
      pane.addEventListener("wheel", (event) => {
        event.preventDefault();
        const box = pane.getBoundingClientRect();
        by(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
      }, { passive: false });
      pane.addEventListener("pointerdown", (event) => {
        last = [event.clientX, event.clientY];
        pane.setPointerCapture(event.pointerId);
      });
      pane.addEventListener("pointermove", (event) => {
        if (!last) return;
        move(event.clientX - last[0], event.clientY - last[1]);
        last = [event.clientX, event.clientY];
      });
      const stop = () => { last = null; };
      pane.addEventListener("pointerup", stop);
      pane.addEventListener("pointercancel", stop);
      pane.addEventListener("dblclick", toggle);
    }
    addEventListener("resize", draw);
  }

  return { lock, by, reset, toggle, draw };
})();
