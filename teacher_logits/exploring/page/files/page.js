(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);

  // A report of an empty dataset has no conversation to show.
  const data = JSON.parse(byId("data")?.textContent ?? '{"bands": ""}');
  const count = data.bands.length;
  if (!count) return;
  const conversation = byId("conversation");
  const cells = [...conversation.querySelectorAll(".t")];
  const entryOf = new Map(cells.map((cell, entry) => [cell, entry]));
  const textOf = new Map(data.vocabulary.map((id, place) => [id, data.texts[place]]));
  const firstChoice = [0];
  for (const size of data.size) firstChoice.push(firstChoice.at(-1) + Math.min(size, data.listed));
  const hasTokens = data.token !== undefined;

  // Numbers as text.
  const percent = (share) => {
    if (share > 0 && share < 5e-5) {
      const power = Math.floor(Math.log10(share * 100));
      return `${(share * 100 / 10 ** power).toFixed(1)} × 10${superscript(power)} %`;
    }
    return `${(share * 100).toFixed(2)} %`;
  };
  const superscript = (power) => `⁻${[...String(-power)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("")}`;
  const whole = (number) => number.toLocaleString("en-US");
  const probabilityOf = (entry) => (data.bands[entry] === "i" ? 0 : data.bits[entry] === null ? null : 2 ** -data.bits[entry]);
  const figures = (entry) => {
    const probability = probabilityOf(entry);
    const bits = data.bits[entry];
    const [low, high] = [data.low[entry], data.high[entry]].map((bound) => bound.toFixed(2));
    return {
      token: hasTokens ? textOf.get(data.token[entry]) : "not known",
      place: hasTokens
        ? `${whole(entry + 1)} of ${whole(count)} · position ${whole(data.position[entry])} · id ${data.token[entry]}`
        : `stored token ${whole(entry)}, the last is ${whole(count - 1)}`,
      probability: probability === null ? "unknown" : probability === 0 && bits !== null ? "below 10⁻³⁰⁰" : percent(probability),
      surprise: bits !== null ? `${bits.toFixed(2)} bits` : probability === 0 ? "infinite" : "unknown",
      rank: !hasTokens ? "unknown" : data.rank[entry] ? `${data.rank[entry]} of ${data.size[entry]}` : `beyond ${data.size[entry]}`,
      where: !hasTokens ? "unknown" : { n: "nucleus", s: "sample", "-": "neither" }[data.where[entry]],
      nucleus: `${data.size[entry]} ${data.size[entry] === 1 ? "token" : "tokens"}`,
      mass: percent(data.mass[entry]),
      kept: percent(data.kept[entry]),
      entropy: low === high ? `${low} bits` : `${low} to ${high} bits`,
    };
  };
  const choicesOf = (entry) => {
    const rows = [];
    for (let place = firstChoice[entry]; place < firstChoice[entry + 1]; place++) {
      const number = data.choices[place];
      const own = hasTokens && data.vocabulary[number] === data.token[entry];
      rows.push({ rank: rows.length + 1, text: data.texts[number], share: data.odds[place], own });
    }
    return rows;
  };

  // The panel: its rows are made once and filled again, so that nothing moves.
  const fields = ["token", "place", "probability", "surprise", "rank", "where", "nucleus", "mass", "kept", "entropy"];
  const fieldNodes = fields.map((name) => (name === "token" ? byId(name).firstElementChild : byId(name)));
  const rows = Array.from({ length: data.listed + 2 }, () => {
    const row = byId("choices").tBodies[0].insertRow();
    const [rank, text, bar, share] = Array.from({ length: 4 }, () => row.insertCell());
    text.dir = "auto";
    text.lang = "";
    const track = bar.appendChild(document.createElement("span"));
    track.className = "bar";
    return { row, rank, text, share, fill: track.appendChild(document.createElement("span")) };
  });
  const narrow = matchMedia("(max-width: 46rem)");
  const fillRow = (nodes, kind, rank, text, share) => {
    nodes.row.className = kind;
    nodes.rank.textContent = rank;
    nodes.text.textContent = text;
    nodes.share.textContent = share === null ? "" : percent(share);
    nodes.fill.style.width = `${Math.min(100, (share ?? 0) * 100)}%`;
  };
  const showInPanel = (entry) => {
    const values = figures(entry);
    fields.forEach((name, place) => { fieldNodes[place].textContent = values[name]; });
    fieldNodes[0].className = hasTokens ? `b${data.bands[entry]}` : "";
    const room = narrow.matches ? 5 : data.listed;
    const choices = choicesOf(entry).slice(0, room);
    if (hasTokens && !choices.some((choice) => choice.own)) {
      choices.push({ rank: data.rank[entry] || "–", text: values.token, share: probabilityOf(entry), own: true });
    }
    const others = choices.reduce((left, { share }) => left - (share ?? 0), 1);
    // The listed ones are known to four digits, so what is left of 1 is not known further.
    choices.push({ rank: "", text: "all others", share: Math.max(0, Math.round(others * 1e4) / 1e4), rest: true });
    rows.forEach((nodes, place) => {
      const { rank, text, share, own, rest } = choices[place] ?? { rank: "", text: "", share: null };
      const unused = place < room + 2 ? "blank" : "away";
      fillRow(nodes, own ? "own" : rest ? "others" : place < choices.length ? "" : unused, rank, text, share);
    });
  };
  const spoken = (entry) => {
    const { token, probability, surprise, rank, where, entropy } = figures(entry);
    const first = choicesOf(entry).slice(0, 3).map(({ text, share }) => `${text} ${percent(share)}`);
    const about = hasTokens ? `${token}: probability ${probability}, surprise ${surprise}, rank ${rank}, found in: ${where}. ` : "";
    return `${about}Entropy ${entropy}. First choices: ${first.join(", ")}.`;
  };

  // The strip chart. Where there are more tokens than columns, a column is as high as its highest token.
  const chart = byId("chart");
  const plot = byId("plot");
  const margin = { left: 26, right: 6, top: 8, bottom: 18 };
  const drawn = (name, attributes, text) => {
    const node = plot.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const finite = data.bits.filter((bits) => bits !== null);
  const highest = Math.max(1, finite.reduce((most, bits) => Math.max(most, bits), 0));
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((size) => highest / size <= 4) ?? 1000;
  const top = Math.ceil(highest / step) * step;
  const heightOf = (entry) => (data.bands[entry] === "i" ? top : data.bits[entry] ?? 0);
  const peaks = [...Array(count).keys()]
    .filter((entry) => heightOf(entry) >= 1)
    .sort((a, b) => heightOf(b) - heightOf(a))
    .slice(0, 20)
    .sort((a, b) => a - b);
  let width = 0;
  let lines = {};
  const xOf = (entry) => margin.left + ((entry + 0.5) / count) * (width - margin.left - margin.right);
  const drawChart = () => {
    const height = chart.clientHeight;
    width = chart.clientWidth;
    const across = width - margin.left - margin.right;
    const bottom = height - margin.bottom;
    const yOf = (bits) => bottom - (bits / top) * (bottom - margin.top);
    plot.replaceChildren();
    plot.setAttribute("viewBox", `0 0 ${width} ${height}`); // paper is narrower
    for (let bits = 0; bits <= top; bits += top > 3 * step ? step * 2 : step) {
      drawn("path", { class: "grid", d: `M${margin.left} ${yOf(bits)}h${across}` });
      drawn("text", { x: margin.left - 6, y: yOf(bits) + 4, "text-anchor": "end" }, bits);
    }
    // Lines closer than this would be a pattern of their own.
    const turns = across / data.starts.length < 16 ? [] : data.starts.slice(1);
    drawn("path", { class: "turns", d: turns.map((start) => `M${xOf(start - 0.5)} ${margin.top}V${bottom}`).join("") });
    const columns = Math.min(count, Math.floor(across / 2));
    const columnWidth = across / columns;
    const gap = columnWidth > 3 ? 1 : 0;
    const bars = { bars: [], infinite: [] };
    for (let column = 0; column < columns; column++) {
      const entries = [Math.floor((column * count) / columns), Math.floor(((column + 1) * count) / columns)];
      let bits = 0;
      for (let entry = entries[0]; entry < entries[1]; entry++) bits = Math.max(bits, heightOf(entry));
      const kind = data.bands.slice(...entries).includes("i") ? "infinite" : "bars";
      const x = margin.left + column * columnWidth;
      bars[kind].push(`M${x.toFixed(2)} ${bottom}V${yOf(bits).toFixed(2)}h${(columnWidth - gap).toFixed(2)}V${bottom}z`);
    }
    for (const [kind, shapes] of Object.entries(bars)) drawn("path", { class: kind, d: shapes.join("") });
    for (const peak of peaks) drawn("circle", { class: "peaks", cx: xOf(peak), cy: yOf(heightOf(peak)), r: 2.25 });
    drawn("text", { x: margin.left, y: height - 3 }, "first stored token");
    drawn("text", { x: width - margin.right, y: height - 3, "text-anchor": "end" }, `last of ${whole(count)}`);
    lines = Object.fromEntries(
      ["hovered", "current"].map((name) => [name, drawn("path", { class: name, d: "" })]),
    );
    lines.move = (name, entry) => lines[name].setAttribute("d", entry === null ? "" : `M${xOf(entry)} ${margin.top - 4}V${bottom}`);
    lines.move("current", current);
  };
  const entryAt = (event) => {
    const x = event.clientX - chart.getBoundingClientRect().left - margin.left;
    const share = x / (width - margin.left - margin.right);
    return Math.min(count - 1, Math.max(0, Math.floor(share * count)));
  };

  // What is looked at: the current token, or for as long as the pointer is on it another.
  let current = 0;
  let hovered = null;
  const hover = (entry) => {
    if (entry === hovered) return;
    if (hovered !== null) cells[hovered].classList.remove("hovered");
    if (entry !== null) cells[entry].classList.add("hovered");
    hovered = entry;
    lines.move("hovered", entry);
    showInPanel(entry ?? current);
  };
  // Towards the end of the conversation the panel is pushed under the chart: back, as far as the token stays in sight.
  const uncoverPanel = (cell) => {
    const covered = chart.getBoundingClientRect().bottom + 16 - byId("panel").getBoundingClientRect().top;
    const room = innerHeight - 32 - cell.getBoundingClientRect().bottom;
    if (covered > 0 && room > 0) scrollBy(0, -Math.min(covered, room));
  };
  const select = (entry, { focus = false, scroll = null, say = false } = {}) => {
    const before = cells[current];
    before.classList.remove("current");
    before.tabIndex = -1;
    before.removeAttribute("role");
    current = entry;
    const cell = cells[entry];
    cell.classList.add("current");
    cell.tabIndex = 0;
    cell.setAttribute("role", "button");
    lines.move("current", entry);
    chart.setAttribute("aria-valuenow", entry + 1);
    chart.setAttribute("aria-valuetext", spoken(entry));
    if (focus) cell.focus({ preventScroll: true });
    if (scroll) {
      cell.scrollIntoView({ block: scroll });
      // Turns that come into view now may take another height than was reserved for them.
      requestAnimationFrame(() => {
        cell.scrollIntoView({ block: "nearest" });
        if (scroll === "center") uncoverPanel(cell);
      });
    }
    if (say) byId("status").textContent = spoken(entry);
    hover(null);
    showInPanel(entry);
  };

  // Where the keys lead.
  const inLine = (direction) => {
    const from = cells[current].getBoundingClientRect();
    const middle = from.left + from.width / 2;
    let best = current;
    let line = null;
    for (let entry = current + direction; entry >= 0 && entry < count; entry += direction) {
      const place = cells[entry].getBoundingClientRect();
      if (Math.abs(place.top - from.top) < from.height / 3) continue;
      line ??= place.top;
      if (Math.abs(place.top - line) > place.height / 3) break;
      const away = (other) => Math.abs(other.left + other.width / 2 - middle);
      if (best === current || away(place) < away(cells[best].getBoundingClientRect())) best = entry;
    }
    return best;
  };
  const inTurn = (direction) => {
    const turn = data.starts.findLastIndex((start) => start <= current);
    if (direction > 0) return data.starts[turn + 1] ?? count - 1;
    return current > data.starts[turn] ? data.starts[turn] : data.starts[Math.max(0, turn - 1)];
  };
  const toPeak = (direction) =>
    (direction > 0 ? peaks.find((peak) => peak > current) : peaks.findLast((peak) => peak < current)) ?? current;
  const byToken = (direction) => Math.min(count - 1, Math.max(0, current + direction));
  const destination = (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return null;
    switch (event.key) {
      case "ArrowRight": return event.shiftKey ? toPeak(1) : byToken(1);
      case "ArrowLeft": return event.shiftKey ? toPeak(-1) : byToken(-1);
      case "ArrowDown": return inLine(1);
      case "ArrowUp": return inLine(-1);
      case "PageDown": return inTurn(1);
      case "PageUp": return inTurn(-1);
      case "Home": return 0;
      case "End": return count - 1;
      default: return null;
    }
  };
  const follow = (event, options) => {
    const entry = destination(event);
    if (entry === null) return;
    event.preventDefault();
    select(entry, options);
  };

  // One listener for all tokens.
  const entryUnder = (event) => entryOf.get(event.target.closest(".t")) ?? null;
  // Where the page moves under a pointer that lies still, nobody points at anything.
  let pointer = "";
  const placeOf = ({ clientX, clientY }) => `${clientX} ${clientY}`;
  addEventListener("pointermove", (event) => { pointer = placeOf(event); }, true);
  conversation.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "touch" && placeOf(event) !== pointer) hover(entryUnder(event));
  });
  conversation.addEventListener("pointerleave", () => hover(null));
  conversation.addEventListener("click", (event) => {
    const entry = entryUnder(event);
    // Somebody who marks text wants to copy it.
    if (entry !== null && getSelection().isCollapsed) select(entry, { focus: true, scroll: "nearest", say: true });
  });
  conversation.addEventListener("keydown", (event) => {
    if (entryUnder(event) !== null) follow(event, { focus: true, scroll: "nearest", say: true });
  });
  chart.addEventListener("pointermove", (event) => {
    if (event.buttons & 1) select(entryAt(event), { scroll: "center" });
    else if (event.pointerType !== "touch") hover(entryAt(event));
  });
  chart.addEventListener("pointerleave", () => hover(null));
  chart.addEventListener("pointerdown", (event) => {
    chart.setPointerCapture(event.pointerId);
    select(entryAt(event), { scroll: "center" });
  });
  chart.addEventListener("keydown", (event) => follow(event, { scroll: "center" }));
  // Before anything has the focus, while the text is in sight.
  document.addEventListener("keydown", (event) => {
    const { top: begin, bottom: end } = conversation.getBoundingClientRect();
    const sideways = event.key === "ArrowLeft" || event.key === "ArrowRight";
    if (sideways && document.activeElement === document.body && begin < innerHeight && end > 0)
      follow(event, { focus: true, scroll: "nearest", say: true });
  });
  narrow.addEventListener("change", () => showInPanel(current));
  byId("panel").addEventListener("click", ({ target }) => {
    const { step, peak } = target.closest("button")?.dataset ?? {};
    if (step) select(byToken(Number(step)), { scroll: "center", say: true });
    if (peak) select(toPeak(Number(peak)), { scroll: "center", say: true });
  });

  // A link to a token leads to it and selects it.
  const fromAddress = () => {
    const entry = entryOf.get(location.hash.length > 1 ? byId(location.hash.slice(1)) : null);
    if (entry !== undefined) select(entry, { focus: true, scroll: "center" });
  };
  addEventListener("hashchange", fromAddress);

  drawChart();
  select(0);
  fromAddress();
  new ResizeObserver(() => { if (chart.clientWidth !== width) drawChart(); }).observe(chart);
})();
