// A rectangle over a picture, drawn by mouse or touch, moved and resized by keys.

const LEAST = 0.05; // of either side
const STEP = 0.02;

/** The box that is drawn over a frame, as shares [left, top, right, bottom]; null where it was called off. */
export function drawCrop(frame) {
  return new Promise(resolve => {
    const box = [0.2, 0.2, 0.8, 0.8];
    const veil = part("div", "veil");
    const area = part("div", "area", {
      tabindex: "0",
      role: "group",
      "aria-roledescription": "rectangle",
      "aria-describedby": "crop-help",
    });
    for (const corner of ["nw", "ne", "sw", "se"]) area.append(part("span", `corner ${corner}`));
    veil.append(area);
    const { bar, done, off, told } = controls();
    frame.append(veil);
    frame.after(bar);

    const show = () => {
      const [left, top, right, bottom] = box.map(share => `${(100 * share).toFixed(2)}%`);
      Object.assign(area.style, { left, top, width: `calc(${right} - ${left})`, height: `calc(${bottom} - ${top})` });
      const words = box.map(share => Math.round(100 * share));
      area.setAttribute("aria-label", `Part of the picture: from ${words[0]} to ${words[2]} % across, from ${words[1]} to ${words[3]} % down`);
    };
    const end = found => {
      veil.remove();
      bar.remove();
      resolve(found);
    };
    const answer = () => end(box.map(share => Number(share.toFixed(4))));

    watchPointer(veil, area, box, show);
    area.addEventListener("keydown", event => {
      if (event.key === "Enter") answer();
      else if (event.key === "Escape") end(null);
      else if (!moveByKey(box, event)) return;
      else {
        show();
        told.textContent = area.getAttribute("aria-label");
      }
      event.preventDefault();
    });
    bar.addEventListener("keydown", event => { if (event.key === "Escape") end(null); });
    done.addEventListener("click", answer);
    off.addEventListener("click", () => end(null));
    show();
    area.focus();
  });
}

function part(name, className, attributes = {}) {
  const made = document.createElement(name);
  made.className = className;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function controls() {
  const bar = part("div", "crop-bar");
  const help = part("p", "faint", { id: "crop-help" });
  help.textContent = "Draw a rectangle, or use the keys: arrows move it, Shift and arrows resize it, Enter searches.";
  const done = part("button", "first", { type: "button" });
  done.textContent = "Search by this part";
  const off = part("button", "", { type: "button" });
  off.textContent = "Cancel";
  const told = part("p", "quiet", { role: "status" });
  bar.append(help, done, " ", off, told);
  return { bar, done, off, told };
}

function moveByKey(box, event) {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!way) return false;
  for (const axis of [0, 1]) {
    const step = way[axis] * STEP;
    if (event.shiftKey) box[axis + 2] = clamp(box[axis + 2] + step, box[axis] + LEAST, 1);
    else {
      const moved = clamp(step, -box[axis], 1 - box[axis + 2]);
      box[axis] += moved;
      box[axis + 2] += moved;
    }
  }
  return true;
}

/** A corner is pulled, the rectangle moved by its inside, and a new one drawn outside. */
function watchPointer(veil, area, box, show) {
  veil.addEventListener("pointerdown", event => {
    event.preventDefault();
    area.focus();
    veil.setPointerCapture(event.pointerId);
    const bounds = veil.getBoundingClientRect();
    const at = moved => [
      clamp((moved.clientX - bounds.left) / bounds.width, 0, 1),
      clamp((moved.clientY - bounds.top) / bounds.height, 0, 1),
    ];
    const begin = at(event);
    const old = [...box];
    const corner = event.target.classList.contains("corner") ? event.target.classList[1] : "";
    const isInside = event.target === area;
    const fixed = corner ? [old[corner.includes("w") ? 2 : 0], old[corner.includes("n") ? 3 : 1]] : begin;
    const move = moved => {
      const here = at(moved);
      for (const axis of [0, 1]) {
        if (isInside) {
          const by = clamp(here[axis] - begin[axis], -old[axis], 1 - old[axis + 2]);
          box[axis] = old[axis] + by;
          box[axis + 2] = old[axis + 2] + by;
        } else {
          const low = Math.min(fixed[axis], here[axis]);
          box[axis] = Math.min(low, 1 - LEAST);
          box[axis + 2] = Math.max(fixed[axis], here[axis], box[axis] + LEAST);
        }
      }
      show();
    };
    veil.addEventListener("pointermove", move);
    const end = () => veil.removeEventListener("pointermove", move);
    veil.addEventListener("pointerup", end, { once: true });
    veil.addEventListener("pointercancel", end, { once: true });
  });
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
