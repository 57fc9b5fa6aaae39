//! The comparison as a table in Markdown.

use crate::bench::fio::{Figures, Job};
use std::fmt::Write as _;

/// One server's figures for one job.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What fio measured.
    pub figures: Figures,
    /// CPU time of all the server's processes per request, in microseconds.
    pub processor_us: f64,
}

impl Row {
    /// Figure by figure, the median of several runs.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn median(runs: &[Row]) -> Row {
        let of = |figure: &dyn Fn(&Row) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(figure).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Row {
            figures: Figures {
                requests: of(&|row| row.figures.requests),
                per_second: of(&|row| row.figures.per_second),
                median_us: of(&|row| row.figures.median_us),
                high_us: of(&|row| row.figures.high_us),
                highest_us: of(&|row| row.figures.highest_us),
            },
            processor_us: of(&|row| row.processor_us),
        }
    }
}

/// One server: its name, what it promises when it answers a write, and its rows, a job each.
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it promises.
    pub promise: String,
    /// A row a job.
    pub rows: Vec<Row>,
}

/// A table, the first column being ours: with ratios of ours to each other one.
#[must_use]
pub fn markdown(jobs: &[Job], columns: &[Column]) -> String {
    let mut text = String::from(
        "| job | server | requests/s | MB/s | p50 µs | p99 µs | p99.9 µs | server CPU µs/request | ours: requests/s | ours: p50 | ours: CPU |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (index, job) in jobs.iter().enumerate() {
        let ours = columns.first().map(|ours| ours.rows[index]);
        for (place, column) in columns.iter().enumerate() {
            let ours = ours.filter(|_| place > 0);
            line(&mut text, job, column, &column.rows[index], ours.as_ref());
        }
    }
    text
}

fn line(text: &mut String, job: &Job, column: &Column, row: &Row, ours: Option<&Row>) {
    let Figures {
        per_second,
        median_us,
        high_us,
        highest_us,
        ..
    } = row.figures;
    let megabytes = per_second * f64::from(job.bytes) / 1e6;
    let ratios = ours.map_or_else(
        || " | | |".to_owned(),
        |ours| {
            format!(
                " {:.2} | {:.2} | {:.2} |",
                ours.figures.per_second / per_second,
                ours.figures.median_us / median_us,
                ours.processor_us / row.processor_us
            )
        },
    );
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "| {} | {} | {per_second:.0} | {megabytes:.1} | {median_us:.0} | {high_us:.0} | {highest_us:.0} | {:.0} |{ratios}",
        job.name, column.name, row.processor_us
    );
}
