// Asks what pictures show: chosen, dropped, pasted or photographed, one request each.

const form = document.getElementById("ask");
const answers = document.getElementById("answers");
const told = document.getElementById("told");
const AT_ONCE = 4;

document.documentElement.classList.add("js");

/** The HTML that a form is answered with, as an element. Throws an Error with the one line of the server. */
async function post(address, fields) {
  const sent = { method: "POST", body: fields, headers: { "X-Fragment": "1" } };
  const response = await fetch(address, sent).catch(() => { throw new Error("the server does not answer; is it running?"); });
  const text = await response.text();
  if (!response.ok) throw new Error(detailOf(response, text));
  const holder = document.createElement("template");
  holder.innerHTML = text;
  return holder.content.firstElementChild;
}

function detailOf(response, text) {
  try {
    return JSON.parse(text).detail;
  } catch {
    return `the server answered ${response.status}`;
  }
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

async function askOne(name, fields, picture) {
  const place = element("div", "waiting", `${name} is looked at`);
  answers.prepend(place);
  try {
    const answer = await post("/ask", fields);
    if (picture) answer.querySelector("img.own").src = URL.createObjectURL(picture);
    place.replaceWith(answer);
    told.textContent = answer.querySelector(".told").innerText;
  } catch (error) {
    const line = element("p", "problem", `${name}: ${error.message}`);
    line.setAttribute("role", "alert");
    place.replaceWith(line);
  }
}

async function ask(files) {
  const waiting = [...files];
  if (!waiting.length) return;
  document.body.classList.add("asked");
  const worker = async () => {
    for (let file = waiting.shift(); file; file = waiting.shift()) {
      const fields = new FormData();
      fields.append("image", file, file.name);
      await askOne(file.name, fields, file);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

for (const input of form.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => {
    ask(input.files);
    input.value = "";
  });
}

form.addEventListener("submit", event => {
  const url = form.elements.url?.value.trim();
  event.preventDefault();
  if (!url) return;
  const fields = new FormData();
  fields.append("url", url);
  document.body.classList.add("asked");
  askOne(url, fields, null);
});

let depth = 0;
const holdsFiles = event => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", event => { if (holdsFiles(event)) form.classList.toggle("over", ++depth > 0); });
addEventListener("dragleave", event => { if (holdsFiles(event)) form.classList.toggle("over", --depth > 0); });
addEventListener("dragover", event => { if (holdsFiles(event)) event.preventDefault(); });
addEventListener("drop", event => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  depth = 0;
  form.classList.remove("over");
  ask(event.dataTransfer.files);
});
addEventListener("paste", event => {
  if (event.clipboardData?.files.length) ask(event.clipboardData.files);
});
