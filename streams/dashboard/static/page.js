// Three things: tables become charts, times become the reader's own, and figures stay fresh. The page is whole without.
"use strict";

const EVERY_MS = 15_000;
const language = document.documentElement.lang;

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function faint(name, alpha) {
  const hex = color(name);
  const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return `rgba(${parts.join(",")},${alpha})`;
}

// --- charts ---

function number(cell, name) {
  return cell.dataset[name] === undefined ? null : Number(cell.dataset[name]);
}

function columns(table) {
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  const x = rows.map((row) => row.cells[0].dataset.x);
  return heads
    .map((head, at) => ({ head, at }))
    .filter(({ head }) => head.dataset.series)
    .map(({ head, at }) => {
      const cells = rows.map((row) => row.cells[at]);
      return {
        series: head.dataset.series,
        title: head.textContent,
        x,
        text: cells.map((cell) => (cell.querySelector(".said") || cell).textContent.trim().replace(/\s*\n\s*/g, " ")),
        y: cells.map((cell) => number(cell, "y")),
        margin: cells.map((cell) => number(cell, "m")),
        low: cells.map((cell) => number(cell, "low")),
        high: cells.map((cell) => number(cell, "high")),
      };
    });
}

function runs(values) {
  const found = [];
  values.forEach((value, at) => {
    if (value === null) return;
    if (at === 0 || values[at - 1] === null) found.push([]);
    found.at(-1).push(at);
  });
  return found;
}

function band(x, low, high, name, title) {
  return runs(low).flatMap((at, number) => {
    const pick = (values) => at.map((index) => values[index]);
    if (at.length === 1) {
      const beam = { color: faint(name, 0.3), width: 10 };
      return [{ mode: "lines", x: [x[at[0]], x[at[0]]], y: [low[at[0]], high[at[0]]], line: beam, hoverinfo: "skip", showlegend: false }];
    }
    const shared = { mode: "lines", line: { width: 0, shape: "linear" }, hoverinfo: "skip", x: pick(x) };
    const named = { name: title, showlegend: Boolean(title) && number === 0 };
    return [
      { ...shared, y: pick(low), showlegend: false },
      { ...shared, y: pick(high), fill: "tonexty", fillcolor: faint(name, 0.22), ...named },
    ];
  });
}

// Of what is too few to say there is a band from nobody to how many it is at most, and no line across it.
function line(column, name, dash) {
  const within = (at, sign) => Math.min(100, Math.max(0, column.y[at] + sign * column.margin[at]));
  const low = column.y.map((value, at) => (value === null || column.margin[at] === null ? column.low[at] : within(at, -1)));
  const high = column.y.map((value, at) => (value === null || column.margin[at] === null ? column.high[at] : within(at, 1)));
  const alone = runs(column.y).some((at) => at.length === 1);
  const drawn = {
    x: column.x,
    y: column.y,
    text: column.text,
    name: column.title,
    mode: column.x.length > 20 && !alone ? "lines" : "lines+markers",
    line: { color: color(name), width: 2.5, dash: dash || "solid" },
    hovertemplate: "%{text}<extra>%{fullData.name}</extra>",
  };
  return [...band(column.x, low, high, name, ""), drawn];
}

const KINDS = {
  lines: (found) => found.flatMap((column) => line(column, column.series)),
  days: (found) => found.flatMap((column) => line(column, column.series)),
  months: (found) => found.flatMap((column) => line(column, column.series)),
  beside: (found) =>
    found.flatMap((column) => {
      if (column.series === "low") return band(column.x, column.low, column.high, "soft", column.title);
      if (column.series === "middle") return line(column, "soft", "dot");
      return line(column, column.series);
    }),
  bars: (found) =>
    found.flatMap((column) => [{
      // Too few to say: a band from nobody to how many it is at most, with the words, which are often longer than it.
      type: "bar",
      orientation: "h",
      x: column.y.map((value, at) => (value === null ? column.high[at] : null)),
      y: column.x,
      text: column.text,
      marker: { color: faint(column.series, 0.22) },
      hovertemplate: "%{text}<extra></extra>",
      textposition: "none",
    }, {
      mode: "text",
      x: column.high.map((high) => (high === null ? null : 0)),
      y: column.x,
      text: column.text.map((text) => text.replace(", ", ",<br>")),
      textfont: { color: color("ink"), size: 12 },
      textposition: "middle right",
      cliponaxis: false,
      hoverinfo: "skip",
    }, {
      type: "bar",
      orientation: "h",
      x: column.y,
      y: column.x,
      text: column.text,
      error_x: { type: "data", array: column.margin, color: color("margin"), thickness: 2, width: 6 },
      marker: { color: color(column.series) },
      hovertemplate: "%{text}<extra></extra>",
      textposition: "none",
      name: column.title,
    }]),
};

// An axis of hours, which grow as the steps do; a little wider than they are, or the last label is not drawn.
function hours(all, wide) {
  const axis = { type: "log", tickangle: 0, tickvals: [1, 3, 6, 12, 24, 72, 168, ...(wide < 480 ? [] : [336]), 720] };
  const [first, last] = [Math.min(...all), Math.max(...all)].map(Math.log10);
  const more = 0.01 * (last - first);
  return first < last ? { ...axis, range: [first - more, last + more] } : axis;
}

function draw(figure) {
  const kind = figure.dataset.chart;
  const found = columns(figure.querySelector("table"));
  let plot = figure.querySelector(".plot");
  if (!plot) {
    plot = document.createElement("div");
    plot.className = kind === "bars" ? "plot low" : "plot";
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-labelledby", figure.getAttribute("aria-labelledby"));
    figure.insertBefore(plot, figure.querySelector("details"));
  }
  const apart = { ticks: "outside", ticklen: 6, tickcolor: "rgba(0,0,0,0)" }; // or the first labels of both axes meet
  const lines = { color: color("soft"), gridcolor: color("line"), zerolinecolor: color("line") };
  const axis = { ...lines, ...apart, fixedrange: true, automargin: true };
  const upward = { ...axis, rangemode: "tozero", ...(kind === "days" ? { tickformat: ",d" } : { ticksuffix: "\u00a0%" }) };
  const along = { ...axis, title: { text: figure.dataset.xTitle || "", standoff: 8 } };
  if (kind === "lines" || kind === "beside") Object.assign(along, hours(found[0].x.map(Number), figure.clientWidth));
  if (kind === "months") Object.assign(along, { type: "date", tickformat: "%m/%Y", dtick: "M1", tickangle: 0, nticks: 8 });
  const room = Math.max(2, Math.floor(figure.clientWidth / 90)); // labels of months that fit beside each other
  if (kind === "months" && found[0].x.length > room) along.dtick = `M${Math.ceil(found[0].x.length / room)}`;
  if (kind === "days") Object.assign(along, { type: "date", tickformat: language === "de" ? "%d.%m." : "%d %b", nticks: 8 });
  if (kind === "days" && found[0].x.length < 8) along.tickvals = found[0].x;
  if (kind === "bars") Object.assign(axis, { autorange: "reversed", type: "category" });
  const layout = {
    margin: { l: 8, r: 16, t: 8, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: color("soft") },
    separators: language === "de" ? ",." : ".,",
    hovermode: kind === "bars" ? "closest" : "x unified",
    hoverlabel: { bgcolor: color("card"), bordercolor: color("line"), font: { color: color("ink") } },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal" },
    showlegend: kind !== "bars",
    barmode: "overlay",
    dragmode: false,
    xaxis: kind === "bars" ? upward : along,
    yaxis: kind === "bars" ? axis : upward,
  };
  Plotly.react(plot, KINDS[kind](found), layout, { displayModeBar: false, responsive: true, locale: language });
}

function drawAll() {
  if (typeof Plotly === "undefined") return;
  for (const figure of document.querySelectorAll("figure[data-chart]")) draw(figure);
}

// --- times ---

function localTimes() {
  const format = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.title = time.textContent;
    time.textContent = format.format(new Date(time.dateTime));
  }
}

// --- fresh figures ---

let known = null;

function keepState(main) {
  const open = [...main.querySelectorAll("details[open]")].map((one) => one.id);
  const shut = [...main.querySelectorAll("details:not([open])")].map((one) => one.id);
  const field = document.activeElement && main.contains(document.activeElement) ? document.activeElement : null;
  const focus = field && (field.id || field.getAttribute("href"));
  const typed = [...main.querySelectorAll("input[id]")].map((one) => [one.id, one.value]);
  return () => {
    for (const id of open) if (id && document.getElementById(id)) document.getElementById(id).open = true;
    for (const id of shut) if (id && document.getElementById(id)) document.getElementById(id).open = false;
    for (const [id, value] of typed) if (document.getElementById(id)) document.getElementById(id).value = value;
    if (!focus) return;
    const again = document.getElementById(focus) || [...main.querySelectorAll("a[href]")].find((one) => one.getAttribute("href") === focus);
    if (again) again.focus({ preventScroll: true });
  };
}

async function refresh() {
  if (document.hidden) return;
  let response;
  try {
    response = await fetch(location.href, { cache: "no-cache", credentials: "same-origin" });
  } catch {
    return; // the next time will do
  }
  if (response.redirected && new URL(response.url).pathname === "/login") {
    location.reload();
    return;
  }
  const tag = response.headers.get("ETag");
  if (!response.ok || !tag || tag === known) return;
  const first = known === null;
  known = tag;
  const text = await response.text();
  const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("main");
  const main = document.getElementById("main");
  if (!fresh || (first && plain === fresh.innerHTML)) return;
  const restore = keepState(main);
  main.replaceChildren(...fresh.childNodes);
  restore();
  localTimes();
  drawAll();
  const news = document.getElementById("news");
  news.textContent = news.dataset.updated;
  setTimeout(() => (news.textContent = ""), 4000);
}

const plain = document.getElementById("main").innerHTML; // as it came, before anything of the below
localTimes();
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
if (document.querySelector(".who form")) setInterval(refresh, EVERY_MS);
