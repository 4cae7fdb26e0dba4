/* Before/after sliders. Without this file the pictures stand side by side. */

function element(name, attributes, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

/* The largest zoom, up to the declared one, that fits and shows each pixel as
   a square of whole pixels of the screen; less, but at least half of it, where
   that brings two pictures side by side. */
function fit(box) {
  const room = box.parentElement.clientWidth;
  if (!room) return; // folded away: called again when it opens
  const style = getComputedStyle(box);
  box.dataset.zoom ??= style.getPropertyValue("--zoom");
  const width = Number(style.getPropertyValue("--w"));
  const whole = (zoom) => Math.floor(zoom * devicePixelRatio) / devicePixelRatio;
  let zoom = whole(Math.min(Number(box.dataset.zoom), room / width));
  if (box.matches(".sr-cell:not(:only-child)")) {
    const gap = parseFloat(getComputedStyle(box.parentElement).columnGap);
    const half = whole((room - gap) / 2 / width);
    if (half >= zoom / 2) zoom = Math.min(zoom, half);
  }
  box.style.setProperty("--zoom", zoom || 1);
  box.classList.toggle("sr-shrunk", !zoom);
}

function slider(box) {
  const panes = [...box.querySelectorAll(".sr-pane")];
  const names = panes.map((pane) =>
    pane.querySelector("figcaption").textContent.trim());
  const stage = element("div", { className: "sr-stage" }, ...panes);
  const range = element("input", {
    type: "range", min: 0, max: 100, step: 0.5, value: 50,
  });
  const divide = () =>
    stage.style.setProperty("--divide", `${range.value}%`);
  range.addEventListener("input", divide);

  const shown = [0, 1];
  const show = () => {
    panes.forEach((pane, i) => {
      pane.classList.toggle("sr-left", i === shown[0]);
      pane.classList.toggle("sr-right", i === shown[1] && i !== shown[0]);
    });
    const [left, right] = shown.map((i) => names[i]);
    range.setAttribute("aria-label",
      `Divider: ${left} on the left, ${right} on the right`);
  };

  const follow = (event) => {
    const { left, width } = stage.getBoundingClientRect();
    range.value = (100 * (event.clientX - left)) / width;
    divide();
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    follow(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) follow(event);
  });
  stage.addEventListener("dragstart", (event) => event.preventDefault());

  box.append(stage, range);
  if (panes.length > 2) {
    const choosers = ["Left", "Right"].map((side, k) => {
      const options = names.map((name, i) =>
        element("option", { value: i, textContent: name }));
      const select = element("select", {}, ...options);
      select.value = shown[k];
      select.addEventListener("change", () => {
        const other = 1 - k;
        const wanted = Number(select.value);
        if (wanted === shown[other]) { // the same twice: swap the two
          shown[other] = shown[k];
          choosers[other].querySelector("select").value = shown[other];
        }
        shown[k] = wanted;
        show();
      });
      return element("label", {}, `${side} `, select);
    });
    box.append(element("div", { className: "sr-choose" }, ...choosers));
  }
  show();
  divide();
  box.classList.add("sr-live");
}

document.querySelectorAll(".sr-slider").forEach(slider);

const watch = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    target.querySelectorAll(":scope > .sr-cell, :scope > .sr-slider")
      .forEach(fit);
  }
});
document.querySelectorAll(".sr-cell, .sr-slider").forEach((box) =>
  watch.observe(box.parentElement));

/* For screen readers: the theme's sidebar is no landmark, so that its title
   belongs to none, and docutils gives entries a role that a div may not have. */
const sidebar = document.querySelector(".bd-sidebar-primary");
sidebar?.setAttribute("role", "region");
sidebar?.setAttribute("aria-label", "Sidebar");
document.querySelectorAll("div[role=doc-biblioentry]").forEach((entry) =>
  entry.setAttribute("role", "listitem"));
