// Pictures that are chosen, dropped, pasted or photographed, or their addresses: one request each, some at once.

import { equipAnswer } from "./answer.js";
import { fieldsOf, make, post, problem } from "./server.js";

const AT_ONCE = 4;

/** Asks what a picture shows, and puts the answer first. */
export async function ask(source, name) {
  const answers = document.getElementById("answers");
  document.body.classList.add("asked");
  const place = make("div", "waiting", `${name} is looked at`);
  answers.prepend(place);
  try {
    const article = await post("/ask", fieldsOf(source));
    place.replaceWith(article);
    equipAnswer(article, source);
    document.getElementById("told").textContent = `${name}: ${article.querySelector(".told").innerText}`;
    return article;
  } catch (error) {
    place.replaceWith(problem(`${name}: ${error.message}`));
    return null;
  }
}

async function askAll(files) {
  const waiting = [...files];
  const work = async () => {
    for (let file = waiting.shift(); file; file = waiting.shift()) await ask({ file }, file.name);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

export function watchAsking() {
  const form = document.getElementById("ask");
  if (!form) return;
  for (const input of form.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", () => {
      askAll(input.files);
      input.value = "";
    });
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
