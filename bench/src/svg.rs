//! Drawing: a canvas of SVG elements, axes, and figures as people read them.
//!
//! Colours are classes, so that one style sheet serves light and dark: [`STYLE`] stands in a page once, or in a picture
//! of its own. Nothing is loaded from elsewhere.

use std::fmt::{Display, Write};

/// What the classes look like. Greys and one green that read on white and on black alike.
pub const STYLE: &str = "\
svg { font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; font-variant-numeric: tabular-nums }
.paper { fill: #ffffff }
.ink { fill: #1f2328; font-size: 13px }
.title { fill: #1f2328; font-size: 14px; font-weight: 600 }
.small { fill: #656d76; font-size: 11px }
.grid { stroke: #d0d7de; stroke-width: 1 }
.bar { fill: #2f8f6b }
.other { fill: #9aa4ae }
.area { fill: #2f8f6b; fill-opacity: .16 }
.line { fill: none; stroke: #2f8f6b; stroke-width: 1.75; stroke-linejoin: round }
.mark { stroke: #b35900; stroke-width: 1; stroke-dasharray: 3 3 }
.marked { fill: #b35900; font-size: 11px; paint-order: stroke; stroke: #ffffff; stroke-width: 4px }
.whisker { stroke: #1f2328; stroke-width: 1.25 }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117 }
  .ink, .title { fill: #e6edf3 }
  .small { fill: #8d96a0 }
  .grid { stroke: #30363d }
  .bar { fill: #3fb087 }
  .other { fill: #6e7681 }
  .area { fill: #3fb087 }
  .line { stroke: #3fb087 }
  .mark { stroke: #e3a04f }
  .marked { fill: #e3a04f; stroke: #0d1117 }
  .whisker { stroke: #e6edf3 }
}
";

/// Where a text is held.
#[derive(Clone, Copy, Debug)]
pub enum Hold {
    /// At its beginning.
    Start,
    /// In the middle.
    Middle,
    /// At its end.
    End,
}

/// Elements, and the size they are drawn in.
pub struct Canvas {
    width: f64,
    height: f64,
    elements: String,
}

impl Canvas {
    /// An empty one, in pixels.
    pub fn new(width: f64, height: f64) -> Canvas {
        Canvas { width, height, elements: String::new() }
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        self.elements.write_fmt(element).expect("a string takes all");
        self.elements.push('\n');
    }

    /// A line of text.
    pub fn text(&mut self, x: f64, y: f64, class: &str, hold: Hold, text: impl Display) {
        let hold = match hold {
            Hold::Start => "start",
            Hold::Middle => "middle",
            Hold::End => "end",
        };
        let text = escaped(&text.to_string());
        self.put(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{hold}\">{text}</text>"
        ));
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.put(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    /// A box, with what is told when one points at it.
    pub fn bar(&mut self, class: &str, (x, y): (f64, f64), width: f64, height: f64, told: &str) {
        let told = escaped(told);
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             rx=\"1.5\"><title>{told}</title></rect>"
        ));
    }

    /// A line through points, or the area within it.
    pub fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut path = String::new();
        for (number, (x, y)) in points.iter().enumerate() {
            write!(path, "{}{x:.1} {y:.1}", if number == 0 { "M" } else { "L" }).expect("a string takes all");
        }
        self.put(format_args!("<path class=\"{class}\" d=\"{path}\"/>"));
    }

    /// The picture as an element of a page. `name` is what it shows, for those who cannot see it.
    pub fn element(self, name: &str) -> String {
        self.within(0.0, name)
    }

    /// The picture as a file of its own, on paper of its own, since a page may be dark where the reader's system is
    /// light, or the other way round.
    pub fn file(mut self, name: &str) -> String {
        const MARGIN: f64 = 24.0;
        let (width, height) = (self.width + 2.0 * MARGIN, self.height + 2.0 * MARGIN);
        self.elements = format!(
            "<style>\n{STYLE}</style>\n<rect class=\"paper\" x=\"-{MARGIN}\" y=\"-{MARGIN}\" width=\"{width}\" \
             height=\"{height}\"/>\n{}",
            self.elements
        );
        self.within(MARGIN, name)
    }

    fn within(self, margin: f64, name: &str) -> String {
        let Canvas { width, height, elements } = self;
        let (width, height, name) = (width + 2.0 * margin, height + 2.0 * margin, escaped(name));
        format!(
            "<svg viewBox=\"{0} {0} {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
             aria-label=\"{name}\" xmlns=\"http://www.w3.org/2000/svg\">\n{elements}</svg>\n",
            0.0 - margin
        )
    }
}

/// Round numbers of bytes from 0 to at least `most`.
pub fn memory_ticks(most: f64) -> Vec<f64> {
    let unit = 1024_f64.powf(most.max(1.0).log(1024.0).floor());
    ticks(most / unit).into_iter().map(|tick| tick * unit).collect()
}

/// Round numbers from 0 to at least `most`, at most seven of them.
pub fn ticks(most: f64) -> Vec<f64> {
    if !(0.0 < most && most.is_finite()) {
        return vec![0.0, 1.0];
    }
    let power = 10_f64.powf((most / 6.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| most / step <= 6.0);
    let step = step.unwrap_or(most);
    (0..=(most / step).ceil() as u64).map(|number| number as f64 * step).collect()
}

/// Text within an element or an attribute.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A count: `950`, `12.3 k`, `4.4 M`.
pub fn count(value: f64) -> String {
    scaled(value, 1000.0, &["", " k", " M", " G"])
}

/// A time in microseconds: `96 µs`, `1.25 ms`, `2 s`.
pub fn time(us: f64) -> String {
    scaled(us, 1000.0, &[" µs", " ms", " s"])
}

/// Memory: `512 MiB`.
pub fn memory(bytes: f64) -> String {
    scaled(bytes, 1024.0, &[" B", " KiB", " MiB", " GiB"])
}

/// Three digits and a unit.
fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let (mut value, mut unit) = (value, 0);
    while 999.5 <= value && unit + 1 < units.len() {
        (value, unit) = (value / step, unit + 1);
    }
    let digits = match value {
        99.95.. => 0,
        9.995.. => 1,
        _ => 2,
    };
    let number = format!("{value:.digits$}");
    let number = if digits == 0 { &number } else { number.trim_end_matches('0').trim_end_matches('.') };
    format!("{number}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_at_a_glance() {
        let counts = [0.0, 7.0, 950.0, 12_345.0, 4_400_000.0, 999_700.0].map(count);
        assert_eq!(counts, ["0", "7", "950", "12.3 k", "4.4 M", "1 M"]);
        assert_eq!([0.0, 0.4, 96.0, 1250.0, 2e6].map(time), ["0", "0.4 µs", "96 µs", "1.25 ms", "2 s"]);
        assert_eq!(memory(512.0 * 1024.0 * 1024.0), "512 MiB");
    }

    #[test]
    fn an_axis_has_round_numbers_and_room_for_all() {
        for most in [0.003, 1.0, 6.1, 9.9, 75.0, 1.3e6] {
            let ticks = ticks(most);
            assert!((3..=7).contains(&ticks.len()), "{most}: {ticks:?}");
            assert!(most <= ticks[ticks.len() - 1]);
        }
        assert_eq!(ticks(75.0), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!(ticks(0.0), [0.0, 1.0]);
        assert_eq!(memory_ticks(3.0 * 1024.0)[1], 512.0);
    }

    #[test]
    fn a_name_cannot_break_out_of_its_element() {
        let mut canvas = Canvas::new(10.0, 10.0);
        canvas.text(0.0, 0.0, "ink", Hold::End, "<b>&\"");
        assert!(canvas.file("\"x\"").contains("&lt;b&gt;&amp;&quot;"));
    }
}
