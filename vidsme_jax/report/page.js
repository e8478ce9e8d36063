// Sorts tables by a column, and opens folded parts for printing. The page is complete
// without it.
(function () {
  "use strict";
  function value(part, column) {
    var row = part.rows ? part.rows[0] : part;
    var cell = row.cells[column];
    var text = cell ? cell.getAttribute("data-v") : null;
    return text === null || text === "" ? NaN : Number(text);
  }
  function sort(table, head, column) {
    var first = head.getAttribute("data-sort");
    var now = head.getAttribute("aria-sort");
    var other = first === "ascending" ? "descending" : "ascending";
    var next = now === first ? other : first;
    var sign = next === "ascending" ? 1 : -1;
    table.tHead.querySelectorAll("th[aria-sort]").forEach(function (each) {
      each.setAttribute("aria-sort", each === head ? next : "none");
    });
    var bodies = Array.from(table.tBodies);
    var parts = bodies.length > 1 ? bodies : Array.from(bodies[0].rows);
    parts.map(function (part, place) {
      return { part: part, place: place, key: value(part, column) };
    }).sort(function (a, b) {
      if (isNaN(a.key) || isNaN(b.key)) {
        return isNaN(a.key) - isNaN(b.key) || a.place - b.place;
      }
      return sign * (a.key - b.key) || a.place - b.place;
    }).forEach(function (each) { each.part.parentNode.appendChild(each.part); });
  }
  var buttons = new Map();
  document.querySelectorAll("table.sortable").forEach(function (table) {
    table.tHead.querySelectorAll("th[data-sort]").forEach(function (head) {
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.textContent = "";
      head.appendChild(button);
      buttons.set(head, button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", function () {
        sort(table, head, head.cellIndex);
      });
    });
  });
  // Browsers repeat the text of a table's head on each printed page, but not buttons.
  function heads(inButtons) {
    buttons.forEach(function (button, head) {
      head.textContent = inButtons ? "" : button.textContent;
      if (inButtons) { head.appendChild(button); }
    });
  }
  var opened = [];
  window.addEventListener("beforeprint", function () {
    heads(false);
    opened = Array.from(document.querySelectorAll("details:not([open])"));
    opened.forEach(function (each) { each.open = true; });
  });
  window.addEventListener("afterprint", function () {
    heads(true);
    opened.forEach(function (each) { each.open = false; });
    opened = [];
  });
})();
