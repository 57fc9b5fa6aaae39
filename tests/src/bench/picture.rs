//! The comparison as a picture: a group of bars a job, a bar a server, as long as its requests a second against the best of that job.

use crate::bench::fio::Job;
use crate::bench::table::Column;
use std::fmt::Write as _;

const LEFT: f64 = 270.0;
const BAR_LONGEST: f64 = 420.0;
const BAR: f64 = 13.0;
const GAP: f64 = 16.0;
const TOP: f64 = 64.0;
const WIDTH: f64 = 860.0;
/// Ours first.
const COLOURS: [&str; 6] = [
    "#c2410c", "#475569", "#94a3b8", "#0e7490", "#7dd3fc", "#a3a3a3",
];

/// An SVG of all jobs and servers.
#[must_use]
pub fn svg(title: &str, jobs: &[Job], columns: &[Column]) -> String {
    let group = columns.len() as f64 * BAR + GAP;
    let height = TOP + jobs.len() as f64 * group + 10.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\" font-weight=\"bold\">Requests a second, against the best of each job</text>\n\
         <text x=\"10\" y=\"36\" fill=\"#555\">{}</text>\n",
        escaped(title)
    );
    for (place, column) in columns.iter().enumerate() {
        let x = 10.0 + place as f64 * 165.0;
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"44\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"53\">{} ({})</text>",
            colour(place),
            x + 14.0,
            escaped(&column.name),
            escaped(&column.promise)
        );
    }
    for (index, job) in jobs.iter().enumerate() {
        let top = TOP + index as f64 * group + GAP / 2.0;
        let rates = columns
            .iter()
            .map(|column| column.rows[index].figures.per_second);
        let best = rates.fold(1.0, f64::max);
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            top + (group - GAP) / 2.0 + 4.0,
            escaped(job.name)
        );
        for (place, column) in columns.iter().enumerate() {
            let figures = &column.rows[index].figures;
            let (y, width) = (
                top + place as f64 * BAR,
                BAR_LONGEST * figures.per_second / best,
            );
            let _ = writeln!(
                text,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{}\" font-size=\"9\">{:.0}/s, p50 {:.0} µs</text>",
                BAR - 2.0,
                colour(place),
                LEFT + width + 4.0,
                y + 9.0,
                figures.per_second,
                figures.median_us
            );
        }
    }
    text.push_str("</svg>\n");
    text
}

fn colour(place: usize) -> &'static str {
    COLOURS[place % COLOURS.len()]
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fio::JOBS;
    use crate::bench::table::Row;

    #[test]
    fn every_server_has_a_bar_for_every_job() {
        let row = |per_second| {
            let figures = crate::bench::fio::Figures {
                per_second,
                ..Default::default()
            };
            Row {
                figures,
                processor_us: 1.0,
            }
        };
        let column = |name: &str, per_second| Column {
            name: name.to_owned(),
            promise: "a < b".to_owned(),
            rows: vec![row(per_second); JOBS.len()],
        };
        let text = svg("here", &JOBS, &[column("one", 10.0), column("two", 20.0)]);
        assert_eq!(text.matches("µs</text>").count(), 2 * JOBS.len());
        assert!(text.contains("a &lt; b") && text.ends_with("</svg>\n"));
        assert!(text.contains(&format!("width=\"{:.1}\"", BAR_LONGEST / 2.0)));
    }
}
