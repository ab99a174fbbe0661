//! Draws the figures as bars, in SVG: those of all questions first, then those of each user.

use std::fmt::Write;

use super::metrics::Figures;
use crate::cli::output::excerpt;
use crate::cli::xml;

/// The most users that one picture shows. More bars could not be told apart.
const USERS_MAX: usize = 40;
/// The number of characters of a name that are shown.
const NAME_CHARACTERS: usize = 28;
const WIDTH: f64 = 1_000.0;
/// Where the bars begin.
const LEFT: f64 = 270.0;
/// The length of a bar of 1.
const FULL: f64 = 660.0;
/// Where the first group of bars begins.
const TOP: f64 = 90.0;
const BAR: f64 = 12.0;
/// The height of a group of three bars, with the gap below it.
const GROUP: f64 = 54.0;
/// Three colours that people tell apart who see few colours (Okabe and Ito).
const COLOURS: [&str; 3] = ["#0072b2", "#e69f00", "#009e73"];

/// A group of bars.
pub(super) struct Group<'a> {
    pub(super) name: &'a str,
    pub(super) counted: u32,
    /// The figures; `None` if no question counts.
    pub(super) figures: Option<Figures>,
}

/// Returns the picture as a text.
pub(super) fn svg(title: &str, k: u32, groups: &[Group<'_>]) -> String {
    let shown = groups.len().min(USERS_MAX.saturating_add(1));
    let rows = u32::try_from(shown).map_or(0.0, f64::from);
    let bottom = TOP + rows * GROUP;
    let height = bottom + 50.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    text(&mut svg, Point { x: 20.0, y: 30.0 }, "start", title);
    let legend = [format!("recall@{k}"), "MRR".to_owned(), format!("nDCG@{k}")];
    for ((name, colour), x) in legend.iter().zip(COLOURS).zip([LEFT, LEFT + 150.0, LEFT + 300.0]) {
        rect(&mut svg, Point { x, y: 46.0 }, 14.0, colour);
        text(&mut svg, Point { x: x + 22.0, y: 57.0 }, "start", name);
    }
    for (share, label) in [(0.0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1")] {
        let x = LEFT + share * FULL;
        let from = TOP - 10.0;
        line(&mut svg, &format!("<path d=\"M{x:.1} {from:.1}V{bottom:.1}\" stroke=\"#ddd\"/>"));
        text(&mut svg, Point { x, y: bottom + 18.0 }, "middle", label);
    }
    let mut y = TOP;
    for Group { name, counted, figures } in groups.iter().take(shown) {
        text(&mut svg, Point { x: LEFT - 12.0, y: y + 16.0 }, "end", &excerpt(name, NAME_CHARACTERS));
        let questions = if *counted == 1 { "1 question".to_owned() } else { format!("{counted} questions") };
        text(&mut svg, Point { x: LEFT - 12.0, y: y + 32.0 }, "end", &questions);
        if let Some(Figures { recall, reciprocal_rank, ndcg }) = figures {
            let mut bar_y = y;
            for (value, colour) in [recall, reciprocal_rank, ndcg].into_iter().zip(COLOURS) {
                rect(&mut svg, Point { x: LEFT, y: bar_y }, value * FULL, colour);
                text(
                    &mut svg,
                    Point { x: LEFT + value * FULL + 6.0, y: bar_y + BAR - 1.0 },
                    "start",
                    &format!("{value:.3}"),
                );
                bar_y += BAR + 2.0;
            }
        }
        y += GROUP;
    }
    let left_out = groups.len() - shown;
    if left_out > 0 {
        text(&mut svg, Point { x: 20.0, y: bottom + 40.0 }, "start", &format!("{left_out} more users are not shown"));
    }
    svg.push_str("</svg>\n");
    svg
}

/// A point of the picture.
#[derive(Clone, Copy)]
struct Point {
    /// The distance from the left edge, in pixels.
    x: f64,
    /// The distance from the upper edge, in pixels.
    y: f64,
}

fn text(svg: &mut String, Point { x, y }: Point, anchor: &str, shown: &str) {
    let shown = xml::escaped(shown);
    line(svg, &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{shown}</text>"));
}

fn rect(svg: &mut String, Point { x, y }: Point, width: f64, colour: &str) {
    line(svg, &format!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>"));
}

fn line(svg: &mut String, element: &str) {
    // Writing to a string never fails.
    let _infallible = writeln!(svg, "{element}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_group_for_each_user() {
        let figures = Some(Figures { recall: 1.0, reciprocal_rank: 0.5, ndcg: 0.25 });
        let groups = [
            Group { name: "all", counted: 2, figures },
            Group { name: "user:<anne>", counted: 1, figures },
            Group { name: "user:bob", counted: 0, figures: None },
        ];
        let drawn = svg("handbook", 10, &groups);
        for part in ["recall@10", "user:&lt;anne&gt;", "1 question<", "0 questions", "width=\"660.0\"", "0.250"] {
            assert!(drawn.contains(part), "{part}: {drawn}");
        }
        // Three colours in the legend, and three bars for each of the two groups with figures.
        let bars = COLOURS.map(|colour| drawn.matches(&format!("fill=\"{colour}\"")).count());
        assert_eq!(bars, [3, 3, 3], "{drawn}");
        let many: Vec<Group<'_>> = (0..USERS_MAX + 3).map(|_| Group { name: "user:x", counted: 1, figures }).collect();
        assert!(svg("handbook", 10, &many).contains("2 more users are not shown"));
    }
}
