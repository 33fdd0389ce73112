"use strict";
// A column whose keys are all numbers sorts as numbers; an empty cell comes last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const key = (row, i) => row.cells[i].dataset.key ?? row.cells[i].textContent;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numbers = rows.every((row) => key(row, i) === "" || !isNaN(key(row, i)));
    const compare = (a, b) => {
      const [x, y] = [key(a, i), key(b, i)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = numbers ? x - y : x.localeCompare(y);
      return down ? -order : order;
    };
    body.append(...[...rows].sort(compare));
  }));
  const field = table.closest(".table").querySelector(".filter");
  const output = field.querySelector("output");
  const filter = (text) => {
    const words = text.toLowerCase().split(/\s+/);
    let shown = 0;
    for (const row of rows) {
      const content = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => content.includes(word));
      shown += !row.hidden;
    }
    output.textContent = `${shown} of ${rows.length} rows`;
  };
  field.hidden = false;
  field.querySelector("input").addEventListener("input", (event) => filter(event.target.value));
  filter("");
}
