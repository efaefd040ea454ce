for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    button.onclick = () => {
      const up = heading.getAttribute("aria-sort") === "descending" || (column === 0 && heading.getAttribute("aria-sort") !== "ascending");
      table.querySelectorAll("thead th").forEach(other => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const order = (a, b) => column === 0 ? value(a).localeCompare(value(b)) : value(a) - value(b);
      body.append(...[...body.rows].sort((a, b) => up ? order(a, b) : order(b, a)));
    };
  });
}
