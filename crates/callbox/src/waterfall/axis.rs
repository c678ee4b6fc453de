//! Milliseconds to columns.

use crate::terminal::Look;

/// An axis from 0 to a round number.
pub struct Axis {
    /// Milliseconds between two ticks.
    step: f64,
    ticks: usize,
    width: usize,
}

impl Axis {
    /// The shortest axis with round ticks that holds `longest` milliseconds in `width` columns.
    pub fn for_span(longest: f64, width: usize) -> Axis {
        let mut step = 1.0;
        // 1, 2, 5, 10, 20, 50 … until at most six steps are needed.
        let mut factors = [2.0, 2.5, 2.0].iter().cycle();
        while longest / step > 6.0 {
            step *= factors.next().unwrap_or(&10.0);
        }
        let ticks = ((longest / step).ceil() as usize).max(1);
        Axis { step, ticks, width }
    }

    /// The unit, and `0    100    200`: exactly as wide as the axis.
    pub fn labels(&self) -> (&'static str, String) {
        let in_seconds = self.step * self.ticks as f64 >= 10_000.0;
        let (divisor, unit) = if in_seconds { (1e3, "s") } else { (1.0, "ms") };
        let mut line: Vec<char> = vec![' '; self.width];
        let mut free_from = 0;
        for tick in 0..=self.ticks {
            let label = format!("{}", self.step * tick as f64 / divisor);
            // Centred on its tick, but never beyond an edge.
            let begin = self.tick_column(tick).saturating_sub(label.len() / 2);
            let begin = begin.min(self.width.saturating_sub(label.len()));
            if begin < free_from {
                continue;
            }
            free_from = begin + label.len() + 1;
            line[begin..].iter_mut().zip(label.chars()).for_each(|(cell, c)| *cell = c);
        }
        (unit, line.into_iter().collect())
    }

    /// The line with its ticks.
    pub fn ruler(&self, look: Look) -> String {
        let (line, first, tick, last) =
            if look.unicode { ('─', '├', '┼', '┤') } else { ('-', '|', '+', '|') };
        let mut cells = vec![line; self.width];
        for index in 0..=self.ticks {
            cells[self.tick_column(index)] = match index {
                0 => first,
                index if index == self.ticks => last,
                _ => tick,
            };
        }
        cells.into_iter().collect()
    }

    /// Blanks before, the bar, blanks after. A bar of a moment ends with a dot, one of a part
    /// does not; both have at least one cell.
    pub fn bar(&self, begin: f64, end: f64, part: bool, look: Look) -> (usize, String, usize) {
        let last = self.column(end);
        let first = self.column(begin).min(last);
        let length = last - first;
        let bar = if part {
            let cell = look.glyph("╌", ".");
            cell.repeat(length.max(1))
        } else {
            format!("{}{}", look.glyph("━", "=").repeat(length), look.glyph("●", "o"))
        };
        let drawn = if part { length.max(1) } else { length + 1 };
        (first, bar, self.width - first - drawn)
    }

    fn tick_column(&self, tick: usize) -> usize {
        self.column(self.step * tick as f64)
    }

    fn column(&self, ms: f64) -> usize {
        let share = ms / (self.step * self.ticks as f64);
        ((share * (self.width - 1) as f64).round() as usize).min(self.width - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASCII: Look = Look { colour: false, unicode: false };

    #[test]
    fn every_length_fits_its_axis() {
        let mut longest = 0.01;
        while longest < 1e12 {
            let axis = Axis::for_span(longest, 47);
            assert!(axis.step * axis.ticks as f64 >= longest, "{longest}");
            assert!(axis.ticks <= 6, "{longest}: {} ticks", axis.ticks);
            assert_eq!(axis.labels().1.chars().count(), 47, "{longest}");
            assert_eq!(axis.ruler(ASCII).len(), 47);
            for (begin, end) in [(0.0, longest), (longest, longest), (longest / 3.0, longest)] {
                for part in [true, false] {
                    let (before, bar, after) = axis.bar(begin, end, part, ASCII);
                    assert_eq!(before + bar.len() + after, 47, "{begin} {end} {longest}");
                }
            }
            longest *= 1.37;
        }
    }
}
