// The threshold: what answers are worth from a confidence on, and which of those here would be named.

const panel = document.getElementById("threshold");
const points = [...(panel?.querySelectorAll("tr[data-at]") ?? [])].map(row => ({
  at: Number(row.dataset.at),
  cells: [...row.cells].map(cell => cell.textContent),
}));
const slider = panel?.querySelector("#cut");
let moved = false;

export function watchThreshold() {
  if (!slider) return;
  slider.addEventListener("input", () => {
    moved = true;
    show();
  });
  panel.addEventListener("toggle", show);
}

/** Says of an answer whether it would be named at the threshold that is set. */
export function tellThreshold(article) {
  if (!slider || article.dataset.confidence === undefined) return;
  if (!moved) setTo(article.querySelector("[data-threshold]")?.dataset.threshold);
  show();
}

// The slider goes from the least confidence to the highest, the points the other way.
function point() {
  return points[points.length - 1 - slider.value];
}

function setTo(threshold) {
  if (threshold === undefined) return;
  const place = points.filter(one => one.at >= Number(threshold)).length;
  slider.value = points.length - Math.max(1, place);
}

function show() {
  const { at, cells } = point();
  const line = panel.querySelector(".at");
  line.setAttribute("x1", 100 * at);
  line.setAttribute("x2", 100 * at);
  const false_ = cells[3] === "–" ? "" : `, ${cells[3]} of the other pictures get a name`;
  slider.setAttribute("aria-valuetext", cells[0]);
  panel.querySelector(".cut-told").textContent =
    `From ${cells[0]} on: ${cells[1]} of the answers are right, ${cells[2]} of the landmarks are found${false_}.`;
  for (const article of document.querySelectorAll("article[data-confidence]")) {
    const { confidence, name } = article.dataset;
    let told = article.querySelector(".at-cut");
    if (!told) {
      told = document.createElement("p");
      told.className = "at-cut";
      article.querySelector(".told").append(told);
    }
    told.hidden = !panel.open;
    told.textContent = Number(confidence) >= at ? `At ${cells[0]} it is named ${name}.` : `At ${cells[0]} it is no known landmark.`;
  }
}
