// Asking the server for parts of pages.

/** The first element of the HTML that is answered. Throws an Error with the one line of the server. */
export async function fetchPart(address, options = {}) {
  const sent = { ...options, headers: { "X-Fragment": "1" } };
  const response = await fetch(address, sent).catch(() => {
    throw new Error("the server does not answer; is it running?");
  });
  const text = await response.text();
  if (!response.ok) throw new Error(lineOf(response, text));
  const holder = document.createElement("template");
  holder.innerHTML = text; // which the server has escaped; scripts in it would not run
  return holder.content.firstElementChild;
}

export function post(address, fields) {
  return fetchPart(address, { method: "POST", body: fields });
}

/** The one line of an error. */
export function lineOf(response, text) {
  try {
    return JSON.parse(text).detail ?? `the server answered ${response.status}`;
  } catch {
    return `the server answered ${response.status}`;
  }
}

/** The form fields that stand for a picture. source: a `file` or a `url`; box: a part of it. */
export function fieldsOf(source) {
  const fields = new FormData();
  if (source.file) fields.append("image", source.file, source.file.name);
  if (source.url) fields.append("url", source.url);
  if (source.box) fields.append("box", source.box.join(","));
  return fields;
}

export function make(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/** A line that is read out at once. */
export function problem(text) {
  const line = make("p", "problem", text);
  line.setAttribute("role", "alert");
  return line;
}
