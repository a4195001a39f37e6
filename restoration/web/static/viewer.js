// The canvas: tiles of a picture before and after, the damage on it, and the brush.
// Places on a picture are in its pixels; the canvas counts the screen's pixels, so that
// at 100 % one pixel of the picture is one of the screen.

const NEAR = 26; // CSS pixels from the divider in which it is taken
const CACHED = 320; // tiles

export function createViewer(canvas, hooks) {
  const context = canvas.getContext("2d", { alpha: false });
  const overlay = document.createElement("canvas");
  const layer = document.createElement("canvas");
  const tiles = new Map();
  const pointers = new Map();
  const state = {
    sources: null, // {size, before, after, damage}: each {levels, url}
    mode: "slider",
    at: 0.5,
    scale: 1,
    x: 0,
    y: 0,
    fitted: true,
    damage: false,
    tool: "move",
    brush: 40,
    strokes: [],
    cursor: null,
    tile: 512,
  };
  let drawing = null;
  let gesture = null;
  let scheduled = false;

  const ratio = () => window.devicePixelRatio || 1;

  function redraw() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      draw();
    });
  }

  // Panes of the canvas, {left, top, width, height, side}, in its pixels.
  function panes() {
    const { width, height } = canvas;
    if (state.mode !== "split") return [{ left: 0, top: 0, width, height }];
    if (width >= height) {
      const half = Math.floor(width / 2);
      return [
        { left: 0, top: 0, width: half - 1, height, side: "before" },
        { left: half + 1, top: 0, width: width - half - 1, height, side: "after" },
      ];
    }
    const half = Math.floor(height / 2);
    return [
      { left: 0, top: 0, width, height: half - 1, side: "before" },
      { left: 0, top: half + 1, width, height: height - half - 1, side: "after" },
    ];
  }

  function fitScale() {
    if (!state.sources) return 1;
    const [pane] = panes();
    const [width, height] = state.sources.size;
    const room = 16 * ratio();
    const across = Math.max(1, pane.width - room) / width;
    return Math.min(across, Math.max(1, pane.height - room) / height);
  }

  function clampView() {
    const [width, height] = state.sources.size;
    const [pane] = panes();
    const half = [pane.width / 2 / state.scale, pane.height / 2 / state.scale];
    const clamp = (value, length, side) =>
      length <= 2 * side
        ? length / 2
        : Math.min(Math.max(value, side), length - side);
    state.x = clamp(state.x, width, half[0]);
    state.y = clamp(state.y, height, half[1]);
  }

  function fit() {
    if (!state.sources) return;
    state.fitted = true;
    state.scale = fitScale();
    [state.x, state.y] = state.sources.size.map((side) => side / 2);
    changed();
  }

  function changed() {
    if (state.sources) clampView();
    hooks.zoomed(state.scale);
    redraw();
  }

  function zoomTo(scale, place) {
    if (!state.sources) return;
    const least = Math.min(fitScale(), 1);
    const wanted = Math.min(Math.max(scale, least), 32);
    const [pane] = panes();
    const where = place ?? [pane.left + pane.width / 2, pane.top + pane.height / 2];
    const before = toPicture(where);
    state.scale = wanted;
    state.fitted = wanted <= least;
    const after = toPicture(where);
    state.x += before[0] - after[0];
    state.y += before[1] - after[1];
    changed();
  }

  const paneOf = ([x, y]) =>
    panes().find(
      (pane) =>
        x >= pane.left && x <= pane.left + pane.width &&
        y >= pane.top && y <= pane.top + pane.height,
    ) ?? panes()[0];

  function toPicture(place) {
    const pane = paneOf(place);
    return [
      state.x + (place[0] - pane.left - pane.width / 2) / state.scale,
      state.y + (place[1] - pane.top - pane.height / 2) / state.scale,
    ];
  }

  function tile(source, level, column, row, wanted) {
    const url = source.url(level, column, row);
    let found = tiles.get(url);
    if (found) {
      tiles.delete(url); // to the end: the least used are first
      tiles.set(url, found);
    } else if (wanted) {
      found = new Image();
      found.addEventListener("load", redraw);
      found.src = url;
      tiles.set(url, found);
      if (tiles.size > CACHED) tiles.delete(tiles.keys().next().value);
    }
    return found?.complete && found.naturalWidth ? found : null;
  }

  // Draws what a pane shows of a source, coarse levels first, so that it is never empty.
  function drawSource(target, source, pane) {
    const [width, height] = state.sources.size;
    const left = pane.left + pane.width / 2 - state.x * state.scale;
    const top = pane.top + pane.height / 2 - state.y * state.scale;
    const last = source.levels.length - 1;
    const level = Math.min(
      last,
      Math.max(0, Math.floor(Math.log2(1 / state.scale) + 0.01)),
    );
    target.imageSmoothingEnabled = state.scale < 2;
    target.imageSmoothingQuality = "high";
    for (let number = last; number >= level; number--) {
      const [across, down] = source.levels[number];
      const step = [
        (state.tile * width * state.scale) / across,
        (state.tile * height * state.scale) / down,
      ];
      const first = [
        Math.max(0, Math.floor((pane.left - left) / step[0])),
        Math.max(0, Math.floor((pane.top - top) / step[1])),
      ];
      const end = [
        Math.min(Math.ceil(across / state.tile), Math.ceil((pane.left + pane.width - left) / step[0])),
        Math.min(Math.ceil(down / state.tile), Math.ceil((pane.top + pane.height - top) / step[1])),
      ];
      const wanted = number === level || number === last;
      for (let row = first[1]; row < end[1]; row++) {
        for (let column = first[0]; column < end[0]; column++) {
          const image = tile(source, number, column, row, wanted);
          if (!image) continue;
          const x = Math.round(left + column * step[0]);
          const y = Math.round(top + row * step[1]);
          const right = left + column * step[0] + (image.naturalWidth / state.tile) * step[0];
          const bottom = top + row * step[1] + (image.naturalHeight / state.tile) * step[1];
          target.drawImage(image, x, y, Math.round(right) - x, Math.round(bottom) - y);
        }
      }
    }
  }

  function strokePath(target, stroke, pane) {
    const place = (x, y) => [
      pane.left + pane.width / 2 + (x - state.x) * state.scale,
      pane.top + pane.height / 2 + (y - state.y) * state.scale,
    ];
    target.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
    target.strokeStyle = target.fillStyle = "rgb(255 64 120)";
    target.lineCap = target.lineJoin = "round";
    target.lineWidth = stroke.size * state.scale;
    target.beginPath();
    const { points } = stroke;
    target.moveTo(...place(points[0], points[1]));
    if (points.length === 2) target.lineTo(...place(points[0] + 1e-3, points[1]));
    for (let i = 2; i < points.length; i += 2) {
      target.lineTo(...place(points[i], points[i + 1]));
    }
    target.stroke();
    target.globalCompositeOperation = "source-over";
  }

  function drawDamage(pane) {
    overlay.width = canvas.width;
    overlay.height = canvas.height;
    const target = overlay.getContext("2d");
    if (state.sources.damage) drawSource(target, state.sources.damage, pane);
    for (const stroke of [...state.strokes, ...(drawing ? [drawing] : [])]) {
      strokePath(target, stroke, pane);
    }
    context.globalAlpha = 0.62;
    context.drawImage(overlay, 0, 0);
    context.globalAlpha = 1;
  }

  function clipped(pane, paint) {
    context.save();
    context.beginPath();
    context.rect(pane.left, pane.top, pane.width, pane.height);
    context.clip();
    paint();
    context.restore();
  }

  function drawDifference(pane) {
    layer.width = canvas.width;
    layer.height = canvas.height;
    const target = layer.getContext("2d");
    target.fillStyle = "#000";
    target.fillRect(0, 0, layer.width, layer.height);
    drawSource(target, state.sources.before, pane);
    target.globalCompositeOperation = "difference";
    drawSource(target, state.sources.after, pane);
    // Twice as strong, or most changes would be too dark to see.
    target.globalCompositeOperation = "lighter";
    target.drawImage(layer, 0, 0);
    target.globalCompositeOperation = "source-over";
    context.drawImage(layer, 0, 0);
  }

  // Where the divider stands, in the canvas' pixels: within what is seen of the picture.
  function dividerAt() {
    const [pane] = panes();
    const width = Math.min(pane.width, state.sources.size[0] * state.scale);
    return pane.left + (pane.width - width) / 2 + state.at * width;
  }

  function draw() {
    context.fillStyle = "#161615";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (!state.sources) return;
    const mode = state.sources.after ? state.mode : "before";
    const painting = state.tool !== "move";
    const overlaid = state.damage || painting;
    if (mode === "slider") {
      const [pane] = panes();
      const at = Math.round(dividerAt());
      drawSource(context, state.sources.after, pane);
      clipped({ ...pane, width: at - pane.left }, () => {
        context.fillStyle = "#161615";
        context.fillRect(0, 0, canvas.width, canvas.height);
        drawSource(context, state.sources.before, pane);
        if (overlaid && !painting) drawDamage(pane);
      });
      if (painting) drawDamage(pane);
      const thick = Math.max(1, Math.round(1.5 * ratio()));
      context.fillStyle = "rgb(0 0 0 / 0.45)";
      context.fillRect(at - thick, pane.top, 2 * thick + 1, pane.height);
      context.fillStyle = "#fff";
      context.fillRect(at - Math.floor(thick / 2), pane.top, thick, pane.height);
      drawGrip(at, pane.top + pane.height / 2);
    } else {
      for (const pane of panes()) {
        clipped(pane, () => {
          if (mode === "difference") drawDifference(pane);
          else drawSource(context, state.sources[pane.side ?? mode], pane);
          if (overlaid && pane.side !== "after") drawDamage(pane);
        });
      }
    }
    if (painting && state.cursor) drawCursor();
  }

  function drawGrip(x, y) {
    const radius = 15 * ratio();
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = "#fff";
    context.shadowColor = "rgb(0 0 0 / 0.5)";
    context.shadowBlur = 6 * ratio();
    context.fill();
    context.shadowBlur = 0;
    context.strokeStyle = "#2a2620";
    context.lineWidth = 1.6 * ratio();
    for (const side of [-1, 1]) {
      context.beginPath();
      context.moveTo(x + side * radius * 0.34, y - radius * 0.3);
      context.lineTo(x + side * radius * 0.64, y);
      context.lineTo(x + side * radius * 0.34, y + radius * 0.3);
      context.stroke();
    }
  }

  function drawCursor() {
    const radius = Math.max(2, (state.brush / 2) * state.scale);
    for (const pane of panes()) {
      const x = pane.left + pane.width / 2 + (state.cursor[0] - state.x) * state.scale;
      const y = pane.top + pane.height / 2 + (state.cursor[1] - state.y) * state.scale;
      for (const [color, width] of [["rgb(0 0 0 / 0.7)", 3], ["#fff", 1.25]]) {
        context.beginPath();
        context.arc(x, y, radius, 0, 2 * Math.PI);
        context.strokeStyle = color;
        context.lineWidth = width * ratio();
        context.stroke();
      }
    }
  }

  // The pointer

  const placeOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) * canvas.width) / box.width,
      ((event.clientY - box.top) * canvas.height) / box.height,
    ];
  };

  function moveDivider([x]) {
    const [pane] = panes();
    const width = Math.min(pane.width, state.sources.size[0] * state.scale);
    const at = (x - pane.left - (pane.width - width) / 2) / width;
    setAt(Math.min(1, Math.max(0, at)));
  }

  function setAt(at) {
    state.at = at;
    hooks.divided(at);
    redraw();
  }

  const canPan = () => state.scale > fitScale() * 1.001;

  function beginStroke(place) {
    const [x, y] = toPicture(place);
    drawing = { erase: state.tool === "erase", size: state.brush, points: [x, y] };
  }

  function extendStroke(place) {
    const [x, y] = toPicture(place);
    const { points } = drawing;
    const far = Math.hypot(x - points.at(-2), y - points.at(-1));
    if (far * state.scale >= 1.5) points.push(x, y);
  }

  function endStroke(keep) {
    const stroke = drawing;
    drawing = null;
    if (stroke && keep) hooks.painted(stroke);
    redraw();
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (!state.sources || event.button > 1) return;
    canvas.focus({ preventScroll: true, focusVisible: false });
    canvas.setPointerCapture(event.pointerId);
    event.preventDefault();
    const place = placeOf(event);
    pointers.set(event.pointerId, place);
    if (pointers.size === 2) {
      endStroke(false);
      gesture = "pinch";
      return;
    }
    const slider = state.mode === "slider" && state.sources.after;
    const near = slider && Math.abs(place[0] - dividerAt()) < NEAR * ratio();
    if (event.button === 1) gesture = "pan";
    else if (state.tool !== "move") gesture = "paint";
    else if (slider && (near || !canPan())) gesture = "divide";
    else gesture = "pan";
    if (gesture === "paint") beginStroke(place);
    if (gesture === "divide") moveDivider(place);
    redraw();
  });

  canvas.addEventListener("pointermove", (event) => {
    if (!state.sources) return;
    const place = placeOf(event);
    if (state.tool !== "move") {
      state.cursor = toPicture(place);
      redraw();
    }
    const before = pointers.get(event.pointerId);
    if (!before) return;
    if (gesture === "pinch" && pointers.size === 2) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const middle = (one) => [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
      const far = (one) => Math.max(1, Math.hypot(one[0] - other[0], one[1] - other[1]));
      const [from, to] = [middle(before), middle(place)];
      state.x -= (to[0] - from[0]) / state.scale;
      state.y -= (to[1] - from[1]) / state.scale;
      zoomTo((state.scale * far(place)) / far(before), to);
    } else if (gesture === "pan") {
      state.x -= (place[0] - before[0]) / state.scale;
      state.y -= (place[1] - before[1]) / state.scale;
      changed();
    } else if (gesture === "divide") {
      moveDivider(place);
    } else if (gesture === "paint" && drawing) {
      for (const part of event.getCoalescedEvents?.() ?? [event]) {
        extendStroke(placeOf(part));
      }
      extendStroke(place);
      redraw();
    }
    pointers.set(event.pointerId, place);
  });

  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, (event) => {
      if (!pointers.delete(event.pointerId)) return;
      if (gesture === "paint") endStroke(kind === "pointerup");
      if (!pointers.size) gesture = null;
    });
  }
  canvas.addEventListener("pointerleave", () => {
    state.cursor = null;
    redraw();
  });
  canvas.addEventListener("dblclick", (event) => {
    if (state.tool !== "move") return;
    if (state.fitted) zoomTo(1, placeOf(event));
    else fit();
  });
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const amount = event.deltaMode ? 20 * event.deltaY : event.deltaY;
      zoomTo(state.scale * 2 ** (-amount / 300), placeOf(event));
    },
    { passive: false },
  );
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[event.key];
    if (!state.sources || event.ctrlKey || event.metaKey) return;
    if (step) {
      event.preventDefault();
      if (state.tool === "move") {
        state.x += (step[0] * 60 * ratio()) / state.scale;
        state.y += (step[1] * 60 * ratio()) / state.scale;
        changed();
        return;
      }
      const far = Math.max(1, state.brush / (event.shiftKey ? 1 : 4));
      const from = state.cursor ?? [state.x, state.y];
      state.cursor = [from[0] + step[0] * far, from[1] + step[1] * far];
      redraw();
    } else if (event.key === " " && state.tool !== "move") {
      event.preventDefault();
      state.cursor ??= [state.x, state.y];
      const erase = state.tool === "erase";
      hooks.painted({ erase, size: state.brush, points: [...state.cursor] });
    }
  });

  // The canvas lies on whole pixels of the screen, or the browser would blur it.
  new ResizeObserver(([entry]) => {
    const box = entry.target.getBoundingClientRect();
    const edge = (start) => Math.ceil(start * ratio() - 1e-3) / ratio() - start;
    const [left, top] = [edge(box.left), edge(box.top)];
    const width = Math.max(1, Math.floor((box.width - left) * ratio() + 1e-3));
    const height = Math.max(1, Math.floor((box.height - top) * ratio() + 1e-3));
    const style = { left, top, width: width / ratio(), height: height / ratio() };
    for (const [name, value] of Object.entries(style)) {
      canvas.style.setProperty(name, `${value}px`);
    }
    if (width === canvas.width && height === canvas.height) return;
    canvas.width = width;
    canvas.height = height;
    if (state.fitted) fit();
    else changed();
    draw();
  }).observe(canvas.parentElement);

  return {
    // Shows another picture, or the same with other sources.
    show(sources, { keep = false } = {}) {
      state.sources = sources;
      if (!keep) fit();
      redraw();
    },
    set(values) {
      const split = (mode) => mode === "split";
      const moved = "mode" in values && split(values.mode) !== split(state.mode);
      Object.assign(state, values);
      canvas.classList.toggle("painting", state.tool !== "move");
      if (moved && state.fitted) fit();
      else changed();
    },
    setAt,
    fit,
    zoomTo,
    zoomBy: (factor) => zoomTo(state.scale * factor),
    get scale() {
      return state.scale;
    },
    get at() {
      return state.at;
    },
    // A place of the picture on the screen, for tests.
    toScreen(x, y) {
      const [pane] = panes();
      const box = canvas.getBoundingClientRect();
      return [
        box.left + (pane.left + pane.width / 2 + (x - state.x) * state.scale) / ratio(),
        box.top + (pane.top + pane.height / 2 + (y - state.y) * state.scale) / ratio(),
      ];
    },
    ready: () => [...tiles.values()].every((image) => image.complete),
  };
}
