// The table of utterances, the names of the dots in the plots, and the links to the players. Data: #data, JSON.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 100;
  const $ = (id) => document.getElementById(id);
  const shorten = (value, decimals) => (value === null || value === undefined ? "\u2013" : value.toFixed(decimals).replace("-", "\u2212"));
  const players = new Map();
  for (const element of document.querySelectorAll(".utterance")) if (!players.has(element.dataset.id)) players.set(element.dataset.id, element);

  // A view is what the table can show: a run with its metrics, or one metric of all runs of a test.
  const views = [];
  data.tests.forEach((test, t) => {
    test.runs.forEach((run) => views.push({ name: data.tests.length > 1 ? `${test.title}: ${run.label}` : run.label, run }));
    if (test.runs.length > 1) {
      data.columns.filter((c) => test.runs.filter((run) => c.key in run.columns).length > 1)
        .forEach((column) => views.push({ name: `${data.tests.length > 1 ? `${test.title}: ` : ""}${column.title} of all`, test: t, column }));
    }
  });

  function contents(view, withSources) {
    if (view.run) {
      const { run } = view;
      const known = data.columns.filter((c) => c.key in run.columns);
      const sources = withSources ? data.sources.filter((c) => c.key in run.sources) : [];
      const columns = [...known, ...sources];
      const lists = columns.map((c) => run.columns[c.key] || run.sources[c.key]);
      const rows = run.ids.map((id, i) => ({ id, values: lists.map((list) => list[i]), note: run.reasons[i] || "" }));
      return { columns, rows, notes: rows.some((row) => row.note) };
    }
    const { runs } = data.tests[view.test];
    const with_ = runs.filter((run) => view.column.key in run.columns);
    const columns = with_.map((run, i) => ({ key: `run${i + 1}`, title: run.label, decimals: view.column.decimals }));
    const rows = new Map();
    with_.forEach((run, k) => run.ids.forEach((id, i) => {
      if (!rows.has(id)) rows.set(id, { id, values: with_.map(() => null), note: "" });
      rows.get(id).values[k] = run.columns[view.column.key][i];
    }));
    if (with_.length === 2) {
      columns.push({ key: "difference", title: "difference", decimals: view.column.decimals });
      for (const row of rows.values()) row.values.push(row.values.includes(null) ? null : row.values[1] - row.values[0]);
    }
    return { columns, rows: [...rows.values()], notes: false };
  }

  const state = { table: null, rows: [], sort: null, down: true, page: 0 };

  // "anna si_snri<3": words are looked for in the name, conditions in the columns.
  function matcher(text, columns) {
    const tests = text.trim().split(/\s+/).filter(Boolean).map((word) => {
      const found = /^([\w.]+)(<=|>=|<|>)([-+]?\d*\.?\d+)$/.exec(word);
      const at = found ? columns.findIndex((c) => c.key === found[1]) : -1;
      if (at < 0) return (row) => row.id.toLowerCase().includes(word.toLowerCase());
      const limit = Number(found[3]);
      const holds = { "<": (v) => v < limit, ">": (v) => v > limit, "<=": (v) => v <= limit, ">=": (v) => v >= limit }[found[2]];
      return (row) => row.values[at] !== null && holds(row.values[at]);
    });
    return (row) => tests.every((test) => test(row));
  }

  function arrange() {
    const { columns, rows } = state.table;
    const kept = rows.filter(matcher($("filter").value, columns));
    const sign = state.down ? -1 : 1;
    const at = columns.findIndex((c) => c.key === state.sort);
    if (at >= 0) {
      // What has no value comes last in either direction.
      kept.sort((a, b) => {
        const [x, y] = [a.values[at], b.values[at]];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (x - y);
      });
    } else if (state.sort === "id") kept.sort((a, b) => sign * (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
    state.rows = kept;
    state.page = 0;
    draw();
  }

  function header() {
    const { columns, notes } = state.table;
    const row = document.createElement("tr");
    const cell = (key, title) => {
      const th = document.createElement("th");
      th.scope = "col";
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.key = key;
      button.textContent = title;
      th.append(button);
      row.append(th);
    };
    cell("id", "mixture");
    columns.forEach((c) => cell(c.key, c.title));
    if (notes) {
      const th = document.createElement("th");
      th.scope = "col";
      th.className = "words";
      th.textContent = "notes";
      row.append(th);
    }
    $("rows").tHead.replaceChildren(row);
  }

  function draw() {
    const { columns, notes, rows } = state.table;
    const body = document.createDocumentFragment();
    for (const row of state.rows.slice(state.page * PAGE, (state.page + 1) * PAGE)) {
      const tr = document.createElement("tr");
      const name = tr.insertCell();
      name.title = row.id;
      if (players.has(row.id)) {
        const link = document.createElement("a");
        link.href = `#${players.get(row.id).id}`;
        link.textContent = `\u25B6\uFE0E ${row.id}`;
        name.append(link);
      } else name.textContent = row.id;
      row.values.forEach((value, i) => { tr.insertCell().textContent = shorten(value, columns[i].decimals); });
      if (notes) {
        const note = tr.insertCell();
        note.className = "words";
        note.textContent = row.note;
      }
      body.append(tr);
    }
    $("rows").tBodies[0].replaceChildren(body);
    for (const th of $("rows").tHead.rows[0].cells) {
      const key = th.firstElementChild && th.firstElementChild.dataset.key;
      if (key) th.setAttribute("aria-sort", key === state.sort ? (state.down ? "descending" : "ascending") : "none");
    }
    const pages = Math.max(1, Math.ceil(state.rows.length / PAGE));
    $("count").textContent = `${state.rows.length} of ${rows.length} mixtures` + (pages > 1 ? `, page ${state.page + 1} of ${pages}` : "");
    $("previous").disabled = state.page === 0;
    $("next").disabled = state.page >= pages - 1;
    $("previous").hidden = $("next").hidden = pages === 1;
  }

  function show() {
    state.table = contents(views[Number($("view").value)], $("sources").checked);
    if (state.sort !== "id" && !state.table.columns.some((c) => c.key === state.sort)) state.sort = null;
    header();
    arrange();
  }

  function open(element) {
    element.open = true;
    element.scrollIntoView();
    element.querySelector("summary").focus({ preventScroll: true });
  }

  // Dots: the mixture nearest to the pointer is named.
  function nameDots(figure) {
    const [t, kind, a, b] = JSON.parse(figure.dataset.plot);
    const [x0, x1, px0, px1, y0, y1, py0, py1] = figure.dataset.axes.split(" ").map(Number);
    const { runs } = data.tests[t];
    let dots = null;
    const collect = () => {
      const found = [];
      const add = (run, i, x, y) => {
        if (x === null || y === null || x === undefined || y === undefined) return;
        found.push({ run, id: run.ids[i], x, y, px: px0 + ((x - x0) / (x1 - x0)) * (px1 - px0), py: py0 + ((y - y0) / (y1 - y0)) * (py1 - py0) });
      };
      if (kind === "pair") {
        const other = new Map(runs[a[1]].ids.map((id, i) => [id, i]));
        const [first, second] = [runs[a[0]].columns[b], runs[a[1]].columns[b]];
        runs[a[0]].ids.forEach((id, i) => add(runs[a[0]], i, first[i], other.has(id) ? second[other.get(id)] : null));
      } else {
        runs.forEach((run) => {
          const [own, improvement] = [run.columns[a], run.columns[b]];
          if (own && improvement) run.ids.forEach((id, i) => add(run, i, own[i] === null || improvement[i] === null ? null : own[i] - improvement[i], improvement[i]));
        });
      }
      return found;
    };
    const svg = figure.querySelector("svg");
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    figure.append(tip);
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.setAttribute("class", "dot");
    ring.setAttribute("r", "6");
    ring.setAttribute("visibility", "hidden");
    svg.append(ring);
    let nearest = null;
    const hide = () => { tip.hidden = true; ring.setAttribute("visibility", "hidden"); nearest = null; };
    svg.addEventListener("pointermove", (event) => {
      dots = dots || collect();
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const [mx, my] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      let best = 18 ** 2;
      nearest = null;
      for (const dot of dots) {
        const distance = (dot.px - mx) ** 2 + (dot.py - my) ** 2;
        if (distance < best) [best, nearest] = [distance, dot];
      }
      if (!nearest) { hide(); return; }
      ring.setAttribute("cx", nearest.px);
      ring.setAttribute("cy", nearest.py);
      ring.setAttribute("visibility", "visible");
      tip.textContent = `${nearest.id}${kind === "pair" ? "" : ` (${nearest.run.label})`}: ${shorten(nearest.x, 2)}, ${shorten(nearest.y, 2)}`;
      tip.hidden = false;
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("click", () => { if (nearest && players.has(nearest.id)) open(players.get(nearest.id)); });
  }

  if (views.length) {
    views.forEach((view, i) => $("view").add(new Option(view.name, i)));
    $("view").addEventListener("change", show);
    $("filter").addEventListener("input", arrange);
    $("sources").addEventListener("change", show);
    $("previous").addEventListener("click", () => { state.page -= 1; draw(); });
    $("next").addEventListener("click", () => { state.page += 1; draw(); });
    $("rows").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      const link = event.target.closest("a");
      if (button) {
        const { key } = button.dataset;
        // Names go up first, scores down; the same header again turns round.
        state.down = state.sort === key ? !state.down : key !== "id";
        state.sort = key;
        arrange();
      } else if (link) {
        event.preventDefault();
        open(document.querySelector(link.hash));
      }
    });
    show();
  }
  document.querySelectorAll("[data-plot]").forEach(nameDots);
  watchPlayers(document);
  watchTables(document);
})();
