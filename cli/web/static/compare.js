// Two pictures side by side in a dialog, with the lines of their match and their similarity map.

import { fetchPart, fieldsOf, make, post, problem } from "./server.js";

let dialog = null;

/** Shows a picture beside one of the index. source: the picture, as of `fieldsOf`, or a `row` of the index. */
export async function compare(source, imageId) {
  const content = open();
  const both = new URLSearchParams({ ...(source.row !== undefined && { row: source.row }), image_id: imageId });
  try {
    const asked = source.row === undefined ? post(`/compare?${both}`, fieldsOf(source)) : fetchPart(`/compare?${both}`);
    content.replaceChildren(await asked);
  } catch (error) {
    content.replaceChildren(problem(error.message));
  }
}

/** Opens the dialog, waiting. It is closed by its button, by Escape and by a click beside it; focus then returns. */
function open() {
  dialog ??= build();
  const content = dialog.querySelector(".content");
  content.replaceChildren(make("p", "waiting", "The pictures are compared"));
  dialog.showModal();
  return content;
}

function build() {
  const made = make("dialog", "compared", "");
  made.setAttribute("aria-label", "Two pictures side by side");
  const close = make("button", "", "Close");
  close.type = "button";
  close.addEventListener("click", () => made.close());
  const content = make("div", "content", "");
  content.setAttribute("aria-live", "polite");
  made.append(close, content);
  made.addEventListener("click", event => { if (event.target === made) made.close(); });
  document.body.append(made);
  return made;
}
