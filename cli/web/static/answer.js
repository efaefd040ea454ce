// An answer: its picture, a part of it to search by, its gallery, its place by the threshold.

import { ask } from "./ask.js";
import { drawCrop } from "./crop.js";
import { equipFeedback } from "./feedback.js";
import { equipGallery } from "./gallery.js";
import { fieldsOf, make } from "./server.js";
import { tellThreshold } from "./threshold.js";

/** Makes an answer work. source: what it is of, as of `fieldsOf`; null = not known here. */
export function equipAnswer(article, source) {
  showOwn(article, source);
  tellThreshold(article);
  const gallery = article.querySelector("form.gallery");
  if (gallery) equipGallery(gallery, source);
  const feedback = article.querySelector(".feedback");
  if (feedback) equipFeedback(feedback, source);
  const why = article.querySelector("button.why");
  if (why) {
    why.hidden = !source?.file && !source?.url;
    why.addEventListener("click", () => explain(source));
  }
  const button = article.querySelector("button.crop");
  if (!button) return;
  button.hidden = source === null;
  button.addEventListener("click", async () => {
    button.hidden = true;
    const drawn = await drawCrop(article.querySelector(".frame"));
    button.hidden = false;
    button.focus();
    if (drawn) searchBy(source, within(source.box, drawn));
  });
}

/** Opens the page that explains an answer, in a tab of its own. */
function explain(source) {
  const form = make("form", "", "");
  Object.assign(form, { action: "/explain", method: "post", enctype: "multipart/form-data", target: "_blank", hidden: true });
  for (const [name, value] of fieldsOf(source)) {
    const field = make("input", "", "");
    field.name = name;
    if (value instanceof File) {
      const held = new DataTransfer();
      held.items.add(value);
      field.type = "file";
      field.files = held.files;
    } else {
      field.value = value;
    }
    form.append(field);
  }
  document.body.append(form);
  form.submit();
  form.remove();
}

function showOwn(article, source) {
  const own = article.querySelector("img.own");
  if (!source?.file || !own || own.hasAttribute("src")) return;
  own.addEventListener("error", () => { own.alt = "This browser cannot show the picture"; });
  own.addEventListener("load", () => URL.revokeObjectURL(own.src), { once: true });
  own.src = URL.createObjectURL(source.file);
}

async function searchBy(source, box) {
  if (source.row !== undefined) {
    location.assign(`/similar/${encodeURIComponent(source.row)}?box=${box.join(",")}`);
    return;
  }
  const article = await ask({ ...source, box }, `a part of ${source.file?.name ?? source.url}`);
  const heading = article?.querySelector("h2");
  if (!heading) return;
  heading.tabIndex = -1;
  heading.focus();
}

/** A box of a box, both as shares: left, top, right, bottom. */
function within(outer, inner) {
  if (!outer) return inner;
  const [left, top, right, bottom] = outer;
  const [width, height] = [right - left, bottom - top];
  return [left + inner[0] * width, top + inner[1] * height, left + inner[2] * width, top + inner[3] * height]
    .map(share => Number(share.toFixed(4)));
}
