document.querySelectorAll("table.sort th").forEach(function (th) {
  th.tabIndex = 0;
  function sort() {
    var column = th.cellIndex, body = th.closest("table").tBodies[0];
    var down = th.dataset.down !== "1";
    th.closest("tr").querySelectorAll("th").forEach(function (other) { delete other.dataset.down; });
    th.dataset.down = down ? "1" : "0";
    function key(row) {
      var cell = row.cells[column], text = cell.dataset.v || cell.textContent.trim();
      return isNaN(parseFloat(text)) ? text : parseFloat(text);
    }
    Array.from(body.rows).sort(function (a, b) {
      var x = key(a), y = key(b), order = x < y ? -1 : x > y ? 1 : 0;
      return down ? -order : order;
    }).forEach(function (row) { body.appendChild(row); });
  }
  th.addEventListener("click", sort);
  th.addEventListener("keydown", function (e) { if (e.key === "Enter") sort(); });
});
