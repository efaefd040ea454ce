// Pictures that are chosen, dropped, pasted or photographed, or their addresses: one request each, some at once.

import { equipAnswer } from "./answer.js";
import { fieldsOf, make, post, problem } from "./server.js";

const AT_ONCE = 4;

/** Asks what a picture shows, and puts the answer first, or where it is waited for. */
export async function ask(source, name, place = waitFor([name])[0]) {
  try {
    const article = await post("/ask", fieldsOf(source));
    place.replaceWith(article);
    equipAnswer(article, source);
    const words = [".verdict", ".verdict + p", ".sure"].map(part => article.querySelector(part)?.textContent);
    document.getElementById("told").textContent = [name, ...words.filter(Boolean)].join(": ");
    return article;
  } catch (error) {
    place.replaceWith(problem(`${name}: ${error.message}`));
    return null;
  }
}

/** Lines in place of answers that are waited for, before all others. */
function waitFor(names) {
  document.body.classList.add("asked");
  const places = names.map(name => make("div", "waiting", `${name} is looked at`));
  document.getElementById("answers").prepend(...places);
  return places;
}

async function askAll(chosen) {
  const files = [...chosen];
  const places = waitFor(files.map(file => file.name));
  let next = 0;
  const work = async () => {
    while (next < files.length) {
      const i = next++;
      await ask({ file: files[i] }, files[i].name, places[i]);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

export function watchAsking() {
  const form = document.getElementById("ask");
  if (!form) return;
  for (const input of form.querySelectorAll("input[type=file]")) {
    const take = () => {
      askAll(input.files);
      input.value = "";
    };
    input.addEventListener("change", take);
    if (input.files.length) take(); // chosen while this script was on its way
  }
  form.addEventListener("submit", event => {
    event.preventDefault();
    const url = form.elements.url?.value.trim();
    if (url) ask({ url }, url);
  });
  watchDropping(form);
  addEventListener("paste", event => {
    if (event.clipboardData?.files.length) askAll(event.clipboardData.files);
  });
}

function watchDropping(form) {
  let depth = 0;
  const on = (name, act) => addEventListener(name, event => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    depth = act(event);
    form.classList.toggle("over", depth > 0);
  });
  on("dragenter", () => depth + 1);
  on("dragleave", () => depth - 1);
  on("dragover", () => depth);
  on("drop", event => {
    askAll(event.dataTransfer.files);
    return 0;
  });
}
