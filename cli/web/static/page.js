// The script of all pages: each part takes care of what of its own is there.

import { watchAsking } from "./ask.js";
import { equipAnswer } from "./answer.js";
import { watchThreshold } from "./threshold.js";

document.documentElement.classList.add("js");
watchThreshold();
for (const article of document.querySelectorAll("article.answer")) equipAnswer(article, sourceOf(article));
for (const form of document.querySelectorAll("form.gallery")) {
  if (!form.closest("article.answer")) import("./gallery.js").then(({ equipGallery }) => equipGallery(form));
}
watchAsking();

/** What a picture of a page is, to ask more of it: a row of the index, or nothing that is known here. */
function sourceOf(article) {
  return article.dataset.row === undefined ? null : { row: article.dataset.row };
}
