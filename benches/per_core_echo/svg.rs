//! The latency distribution as a picture: one panel per path, at the smallest window measured. Where asks are written in
//! several ways, the first of them is drawn.
//!
//! The curves show which latency how many of the asks stay below. The horizontal axis is stretched toward 100 %, each
//! step being ten times rarer, since rare asks are what the picture is for.

use std::fmt::Write;
use std::path::Path as FilePath;
use std::{fs, io};

use crate::Row;
use crate::cpus::machine;
use crate::plan::{FloorKind, IdlePolicy, Path};
use crate::sample::Sample;
use crate::table::time;

const PANEL: f64 = 400.0;
const TOP: f64 = 88.0;
const LEFT: f64 = 62.0;
const PLOT_WIDTH: f64 = PANEL - LEFT - 18.0;
const PLOT_HEIGHT: f64 = 300.0;
const LEGEND_ROW: f64 = 20.0;
/// Points of a curve per step of the horizontal axis.
const POINTS: u32 = 40;
/// The labels of the horizontal axis: shares of all asks, each step ten times rarer.
const SHARES: [&str; 8] = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %", "99.99999 %"];

/// Writes the picture, over whatever the file held, and makes its folder if there is none.
pub(crate) fn write(file: &FilePath, rows: &[Row]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, render(rows))
}

struct Curve<'a> {
    name: String,
    color: &'static str,
    dashed: bool,
    sample: &'a Sample,
}

struct Panel<'a> {
    title: String,
    curves: Vec<Curve<'a>>,
}

fn render(rows: &[Row]) -> String {
    let panels: Vec<Panel<'_>> = Path::ALL.iter().filter_map(|&path| panel(path, rows)).collect();
    let legend_rows = panels.iter().map(|panel| panel.curves.len()).max().unwrap_or(0) as f64;
    let width = PANEL * panels.len() as f64;
    let height = TOP + PLOT_HEIGHT + 62.0 + legend_rows * LEGEND_ROW;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"20\" y=\"28\" font-size=\"17\" font-weight=\"600\">Latency of an echo</text>\n\
         <text x=\"20\" y=\"47\" fill=\"#666\">{}</text>\n",
        escaped(&machine()),
    );
    for (i, panel) in panels.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate({} {TOP})\">", PANEL * i as f64);
        draw(&mut out, panel);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn panel(path: Path, rows: &[Row]) -> Option<Panel<'_>> {
    let variant = rows.first()?.run.variant;
    let of_path = || rows.iter().filter(move |row| (row.run.path, row.run.variant) == (path, variant));
    let window = of_path().filter_map(|row| row.run.window()).min()?;
    let payload = of_path().next()?.run.payload;
    let mut curves = Vec::new();
    let mut floors: Vec<(FloorKind, &Sample)> = Vec::new();
    for row in of_path().filter(|row| row.run.window() == Some(window)) {
        let idle = row.run.idle;
        let name = format!("ringpost, {}", idle.name());
        curves.push(Curve { name, color: color(idle), dashed: false, sample: &row.ringpost });
        // The same floor stands beside several rows; its first measurement is as good as any.
        if let (Some(kind), Some(floor)) = (row.run.floor(), &row.floor)
            && floors.iter().all(|&(known, _)| known != kind)
        {
            floors.push((kind, floor));
        }
    }
    for (i, (kind, sample)) in floors.into_iter().enumerate() {
        let color = if i == 0 { "#444" } else { "#999" };
        curves.push(Curve { name: format!("floor: {}", kind.name()), color, dashed: true, sample });
    }
    Some(Panel { title: format!("{}: {payload} bytes, {window} in flight", path.name()), curves })
}

fn color(idle: IdlePolicy) -> &'static str {
    match idle {
        IdlePolicy::Adaptive => "#e07b00",
        IdlePolicy::Spin => "#1769aa",
        IdlePolicy::Park => "#7a3fa0",
    }
}

/// Places a share of asks and a latency on the paper; both axes are logarithmic.
struct Scale {
    nines: f64,
    low: f64,
    high: f64,
}

impl Scale {
    /// Fits all curves of a panel.
    fn of(curves: &[Curve<'_>]) -> Scale {
        let most = curves.iter().map(|curve| nines(curve.sample)).fold(1.0, f64::max);
        let low = curves.iter().map(|curve| curve.sample.latency.min().max(1)).min().unwrap_or(1) as f64;
        let high = curves.iter().map(|curve| curve.sample.latency.max()).max().unwrap_or(10) as f64;
        Scale { nines: most, low: low.log10() - 0.08, high: high.max(low * 2.0).log10() + 0.08 }
    }

    fn x(&self, nines: f64) -> f64 {
        LEFT + PLOT_WIDTH * nines / self.nines
    }

    fn y(&self, nanos: f64) -> f64 {
        PLOT_HEIGHT * (self.high - nanos.log10()) / (self.high - self.low)
    }
}

/// How many nines the sample has asks for: 1,000 asks reach 99.9 %.
fn nines(sample: &Sample) -> f64 {
    (sample.latency.len() as f64).log10().clamp(0.1, (SHARES.len() - 1) as f64)
}

fn draw(out: &mut String, panel: &Panel<'_>) {
    let scale = Scale::of(&panel.curves);
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"-12\" font-size=\"14\" font-weight=\"600\">{}</text>", panel.title);
    draw_axes(out, &scale);
    for curve in &panel.curves {
        let dash = dash(curve);
        let color = curve.color;
        let points = points(curve.sample, &scale);
        let _ = writeln!(
            out,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.8\" stroke-linejoin=\"round\"{dash}/>"
        );
    }
    draw_legend(out, &panel.curves);
}

fn dash(curve: &Curve<'_>) -> &'static str {
    if curve.dashed { " stroke-dasharray=\"6 4\"" } else { "" }
}

fn draw_axes(out: &mut String, scale: &Scale) {
    let right = LEFT + PLOT_WIDTH;
    // With few decades, also 2 and 5 times each power of ten, so that at least two lines carry a number.
    let steps: &[f64] = if scale.high - scale.low < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    for power in scale.low.floor() as i32..=scale.high.ceil() as i32 {
        for step in steps {
            let nanos = step * 10f64.powi(power);
            if !(scale.low..=scale.high).contains(&nanos.log10()) {
                continue;
            }
            let y = scale.y(nanos);
            let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#e4e4e4\"/>");
            let label = short_time(nanos as u64);
            let _ =
                writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 6.0, y + 4.0);
        }
    }
    for (i, share) in SHARES.iter().enumerate().take_while(|(i, _)| *i as f64 <= scale.nines) {
        let x = scale.x(i as f64);
        // Two rows of labels: side by side the long ones would touch.
        let y = PLOT_HEIGHT + if i % 2 == 0 { 17.0 } else { 31.0 };
        let _ = writeln!(out, "<path d=\"M{x:.1} 0V{PLOT_HEIGHT}\" stroke=\"#e4e4e4\"/>");
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{share}</text>");
    }
    let _ = writeln!(out, "<path d=\"M{LEFT} 0V{PLOT_HEIGHT}H{right}\" stroke=\"#888\" fill=\"none\"/>");
}

/// The latency at a line of the grid, which is a round number.
fn short_time(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{} us", nanos / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", nanos / 1_000_000),
        _ => format!("{} s", nanos / 1_000_000_000),
    }
}

fn points(sample: &Sample, scale: &Scale) -> String {
    let last = (nines(sample) * f64::from(POINTS)) as u32;
    let mut out = String::new();
    for i in 0..=last {
        let nines = f64::from(i) / f64::from(POINTS);
        let nanos = sample.at(1.0 - 10f64.powf(-nines)).max(1) as f64;
        let _ = write!(out, "{:.1},{:.1} ", scale.x(nines), scale.y(nanos));
    }
    out
}

fn draw_legend(out: &mut String, curves: &[Curve<'_>]) {
    for (i, curve) in curves.iter().enumerate() {
        let y = PLOT_HEIGHT + 58.0 + LEGEND_ROW * i as f64;
        let (left, right, text) = (LEFT, LEFT + 26.0, LEFT + 34.0);
        let (color, dash) = (curve.color, dash(curve));
        let _ = writeln!(
            out,
            "<path d=\"M{left} {:.1}H{right}\" stroke=\"{color}\" stroke-width=\"2.4\"{dash}/>\
             <text x=\"{text}\" y=\"{y:.1}\">{}</text>\
             <text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\" fill=\"#666\">p50 {}</text>",
            y - 4.0,
            curve.name,
            LEFT + PLOT_WIDTH,
            time(curve.sample.at(0.5)),
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
