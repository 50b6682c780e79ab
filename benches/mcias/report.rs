//! The table that the bench writes.

use std::fmt::Write;
use std::path::Path;

/// What was measured so far.
pub struct Report(Vec<[String; 4]>);

/// Whether a figure is what it has to be.
pub enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// There is none.
    None,
}

impl Report {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// One more row: what, the figure with its unit and in `places`, what it has to be, and how it came about.
    pub fn row(&mut self, what: &str, figure: f64, places: usize, unit: &str, target: Target, how: impl Into<String>) {
        let (target, met) = match target {
            Target::AtMost(most) => (format!("at most {most}"), figure <= most),
            Target::AtLeast(least) => (format!("at least {least}"), figure >= least),
            Target::None => (String::new(), true),
        };
        let missed = if met { "" } else { " **missed**" };
        let figure = if places == 0 { with_commas(figure) } else { format!("{figure:.places$}") };
        let row = [what.to_owned(), format!("{figure}{unit}{missed}"), target, how.into()];
        eprintln!("  {}", row.join(" | "));
        self.0.push(row);
    }

    /// Something that couldn't be measured here.
    pub fn not_run(&mut self, what: &str, why: &str) {
        eprintln!("  NOT RUN: {what}: {why}");
        self.0.push([what.to_owned(), "not run".to_owned(), String::new(), why.to_owned()]);
    }

    /// Writes it all to standard output, and on which machine that was.
    pub fn print(&self) {
        let mut text = format!("{}\n\n| what | figure | target | how |\n|---|---:|---:|---|\n", machine());
        for row in &self.0 {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        print!("{text}");
    }
}

/// The processor, how many of it we may use, and the kernel.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, m)| m);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, {cores} cores, Linux {}; what makes the load runs on the same cores.", kernel.trim())
}

/// The middle one.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The one that 99 of 100 are below or at.
pub fn p99(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() * 99).div_ceil(100) - 1]
}

/// All of them, for a row that tells the median.
pub fn each(figures: &[f64]) -> String {
    figures.iter().map(|figure| with_commas(*figure)).collect::<Vec<_>>().join(" ")
}

/// A whole number with a comma at the thousands.
pub fn with_commas(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
