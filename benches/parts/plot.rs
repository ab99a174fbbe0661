//! Draws latency and recall over the share visible, as an SVG.

use std::fmt::Write;

/// The measurements of one way of searching.
pub(crate) struct Line {
    name: &'static str,
    pub(crate) points: Vec<Point>,
}

/// The measurements at one share.
pub(crate) struct Point {
    pub(crate) share: f64,
    pub(crate) milliseconds: f64,
    pub(crate) recall: f64,
}

impl Line {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, points: Vec::new() }
    }
}

/// The style of each line. Their marks distinguish the lines without colours, too.
const STYLES: [(&str, &str); 3] = [("#0072b2", "circle"), ("#d55e00", "square"), ("#009e73", "triangle")];
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 260.0;
const TOP: f64 = 70.0;
/// The left edges of the two panels.
const LEFT: [f64; 2] = [70.0, 560.0];
/// The decades of the axes: the share from 0.01 % to 100 %, the latency from 0.01 ms to 100 ms.
const DECADES: f64 = 4.0;

pub(crate) fn svg(lines: &[Line; 3]) -> String {
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1000 420\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"1000\" height=\"420\" fill=\"#fff\"/>\n",
    );
    panel(
        &mut svg,
        LEFT[0],
        "Latency, p50 (ms)",
        &[(0.0, "0.01"), (0.25, "0.1"), (0.5, "1"), (0.75, "10"), (1.0, "100")],
    );
    panel(
        &mut svg,
        LEFT[1],
        "Recall of the 10 best that the user may see",
        &[(0.0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1")],
    );
    for ((line, (colour, mark)), place) in lines.iter().zip(STYLES).zip(0..) {
        let latency = |point: &Point| ((point.milliseconds / 0.01).log10() / DECADES).clamp(0.0, 1.0);
        draw(&mut svg, LEFT[0], line, (colour, mark), latency);
        draw(&mut svg, LEFT[1], line, (colour, mark), |point| point.recall);
        let x = LEFT[0] + 230.0 * f64::from(place);
        marked(&mut svg, (colour, mark), x, 20.0);
        text(&mut svg, x + 12.0, 24.0, "start", line.name);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Draws the frame of a panel with its axes. Ticks are placed from the bottom (0) to the top (1).
fn panel(svg: &mut String, left: f64, title: &str, ticks: &[(f64, &str)]) {
    let bottom = TOP + HEIGHT;
    text(svg, left, TOP - 12.0, "start", title);
    for (height, label) in ticks {
        let y = bottom - height * HEIGHT;
        writeln!(svg, "<path d=\"M{left} {y}h{WIDTH}\" stroke=\"#ddd\"/>").unwrap();
        text(svg, left - 8.0, y + 4.0, "end", label);
    }
    for (share, label) in [(0.0001, "0.01 %"), (0.001, "0.1 %"), (0.01, "1 %"), (0.1, "10 %"), (1.0, "100 %")] {
        let x = left + across(share);
        writeln!(svg, "<path d=\"M{x} {TOP}v{HEIGHT}\" stroke=\"#ddd\"/>").unwrap();
        text(svg, x, bottom + 18.0, "middle", label);
    }
    text(svg, left + WIDTH / 2.0, bottom + 40.0, "middle", "share of the chunks that the user may see");
}

fn across(share: f64) -> f64 {
    (share / 0.0001).log10() / DECADES * WIDTH
}

fn draw(svg: &mut String, left: f64, line: &Line, style: (&str, &str), height: impl Fn(&Point) -> f64) {
    let places: Vec<(f64, f64)> =
        line.points.iter().map(|point| (left + across(point.share), TOP + HEIGHT - height(point) * HEIGHT)).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let (path, colour) = (path.join(" "), style.0);
    writeln!(svg, "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>").unwrap();
    for (x, y) in places {
        marked(svg, style, x, y);
    }
}

fn marked(svg: &mut String, (colour, mark): (&str, &str), x: f64, y: f64) {
    let shape = match mark {
        "circle" => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\""),
        "square" => format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\"", x - 4.5, y - 4.5),
        _ => format!("<path d=\"M{:.1} {:.1}l5 10h-10z\"", x, y - 6.0),
    };
    writeln!(svg, "{shape} fill=\"{colour}\"/>").unwrap();
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>").unwrap();
}
