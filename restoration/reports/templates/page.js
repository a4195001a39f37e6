"use strict";
for (const root of document.querySelectorAll("[data-comparison]")) {
  const stage = root.querySelector(".stage");
  const range = stage.querySelector("input[type=range]");
  const views = root.querySelector(".views");
  const plates = root.querySelectorAll(".plate img");

  const name = (side) => stage.querySelector(`[data-tag=${side}]`).textContent;
  const move = (value) => {
    range.value = value;
    stage.style.setProperty("--at", `${range.value}%`);
    range.setAttribute(
      "aria-valuetext",
      `${range.value} % ${name("left")}, ${100 - range.value} % ${name("right")}`,
    );
  };
  const show = (side, plate) => {
    const layer = stage.querySelector(`[data-layer=${side}]`);
    layer.src = plate.src;
    layer.alt = plate.alt;
    stage.querySelector(`[data-tag=${side}]`).textContent = plate.dataset.label;
  };
  const choose = (left, right) => {
    show("left", plates[left]);
    show("right", plates[right]);
    move(range.value);
  };

  // The range input handles keys and assistive technology. The pointer is handled here,
  // so that the line is exactly under it and a vertical swipe still scrolls the page.
  let start = range.value;
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    move(Math.round((100 * (event.clientX - box.left)) / box.width));
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    // Without this the press would move focus from the range to the page.
    if (event.pointerType === "mouse") event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    stage.classList.remove("keyed");
    range.focus({ preventScroll: true, focusVisible: false });
    start = range.value;
    if (event.pointerType === "mouse") follow(event);
  });
  for (const type of ["pointermove", "pointerup"]) {
    stage.addEventListener(type, (event) => {
      if (stage.hasPointerCapture(event.pointerId)) follow(event);
    });
  }
  // The browser uses the swipe for scrolling: undo its first few pixels.
  stage.addEventListener("pointercancel", () => move(start));
  range.addEventListener("input", () => move(range.value));
  // Keys used after the pointer show the focus again.
  range.addEventListener("keydown", () => stage.classList.add("keyed"));

  if (views) {
    views.hidden = false;
    views.addEventListener("change", (event) => {
      choose(event.target.dataset.left, event.target.dataset.right);
    });
    // Browsers restore a chosen view on reload.
    const chosen = views.querySelector("input:checked").dataset;
    choose(chosen.left, chosen.right);
  } else {
    choose(0, 1);
  }
  stage.hidden = false;
}
document.documentElement.classList.add("live");
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
