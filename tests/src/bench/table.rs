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

/// The rows of each job: ours, and the other's where there is one.
#[must_use]
pub fn markdown(rows: &[(Job, Row, Option<Row>)], peer: &str) -> String {
    let mut text = String::from(
        "| job | server | requests/s | MB/s | median µs | 99 % µs | server CPU µs/request |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (job, ours, theirs) in rows {
        line(&mut text, job, "isthmus", ours);
        if let Some(theirs) = theirs {
            line(&mut text, job, peer, theirs);
            // Writing to a String can't fail.
            let _ = writeln!(
                text,
                "| | **ratio** | {:.2} | | {:.2} | {:.2} | {:.2} |",
                ours.figures.per_second / theirs.figures.per_second,
                ours.figures.median_us / theirs.figures.median_us,
                ours.figures.high_us / theirs.figures.high_us,
                ours.processor_us / theirs.processor_us,
            );
        }
    }
    text
}

fn line(text: &mut String, job: &Job, server: &str, row: &Row) {
    let Figures {
        per_second,
        median_us,
        high_us,
        ..
    } = row.figures;
    let megabytes = per_second * f64::from(job.bytes) / 1e6;
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "| {} | {server} | {per_second:.0} | {megabytes:.1} | {median_us:.0} | {high_us:.0} | {:.0} |",
        job.name, row.processor_us
    );
}
