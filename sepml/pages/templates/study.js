"use strict";
watchTables(document);
// A click on a heading sorts the rows of its table by that column; another click, the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const heading = button.parentElement;
      const rising = heading.getAttribute("aria-sort") === "descending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => row.cells[column].textContent.trim().replace("\u2212", "-");
      const compare = (a, b) => {
        const [x, y] = [parseFloat(a), parseFloat(b)];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a.localeCompare(b);
        return x - y;
      };
      const rows = [...body.rows].sort((one, two) => compare(value(one), value(two)) * (rising ? 1 : -1));
      body.append(...rows);
    });
  });
}
