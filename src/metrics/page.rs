//! The text (Prometheus' exposition format, version 0.0.4).

mod families;

use std::fmt::Write as _;

pub(super) use families::render;

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A label and its value.
type Label<'a> = (&'static str, &'a str);

/// A page as it is written.
#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    /// Begins a family: all samples up to the next one belong to it.
    fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        debug_assert!(!help.contains(['\\', '\n']), "it would need escapes");
        // Writing to a String does not fail, here and below.
        let _ = writeln!(self.text, "# HELP {name} {help}");
        let _ = writeln!(self.text, "# TYPE {name} {}", kind.name());
        Family { page: self, name }
    }
}

/// A family as it is written.
struct Family<'a> {
    page: &'a mut Page,
    name: &'static str,
}

impl Family<'_> {
    /// A whole number.
    fn count(&mut self, labels: &[Label<'_>], value: u64) {
        self.sample("", labels, None, &value.to_string());
    }

    /// Any number.
    fn value(&mut self, labels: &[Label<'_>], value: f64) {
        self.sample("", labels, None, &value.to_string());
    }

    /// A histogram: counts by upper bound, those beyond the last bound, and the sum of all that was measured.
    fn histogram(&mut self, labels: &[Label<'_>], buckets: &[(f64, u64)], beyond: u64, sum: f64) {
        let mut count = 0u64;
        for (bound, more) in buckets {
            count = count.saturating_add(*more);
            self.sample(
                "_bucket",
                labels,
                Some(&bound.to_string()),
                &count.to_string(),
            );
        }
        count = count.saturating_add(beyond);
        let count = count.to_string();
        self.sample("_bucket", labels, Some("+Inf"), &count);
        self.sample("_sum", labels, None, &sum.to_string());
        self.sample("_count", labels, None, &count);
    }

    fn sample(&mut self, suffix: &str, labels: &[Label<'_>], bound: Option<&str>, value: &str) {
        let text = &mut self.page.text;
        text.push_str(self.name);
        text.push_str(suffix);
        let bound = bound.map(|bound| ("le", bound));
        let mut separator = '{';
        for (label, value) in labels.iter().copied().chain(bound) {
            text.push(separator);
            separator = ',';
            let _ = write!(text, "{label}=\"");
            escape(text, value);
            text.push('"');
        }
        if separator == ',' {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

/// A label's value as it stands between quotes.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            character => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests;
