//! The report for people.

use std::io::Write;

use unicode_width::UnicodeWidthStr;

use super::Findings;
use super::figures::Figures;
use super::timeline::Timeline;
use crate::commands::query::QueryError;
use crate::commands::query::terminal::{Screen, padded};
use crate::os::printable::Printable;

/// Columns of a terminal that a name may take, so that bars have room.
const NAME_WIDTH: std::ops::RangeInclusive<usize> = 12..=32;

/// The smallest width of a bar.
const BAR_WIDTH_MIN: usize = 6;

/// The columns of figures.
const HEADS: [&str; 5] = ["EVENTS", "SUM", "MIN", "MAX", "AVERAGE"];

/// A line of the table: a name or the title of several names, the cells, and the number of events for its bar.
struct Line {
    title: String,
    cells: [String; HEADS.len()],
    bar: Option<u64>,
}

pub(super) fn write(
    out: &mut dyn Write,
    findings: &Findings,
    screen: Screen,
) -> Result<(), QueryError> {
    let (place, range, zone) = (&findings.place, &findings.range, &findings.zone);
    // These can hold a path and texts of the database.
    let (place, range, zone) = (Printable(place), Printable(range), Printable(zone));
    writeln!(out, "eventlog in {place}")?;
    writeln!(out, "{range}, times in the time zone {zone}")?;
    let without_time = findings.total.without_time;
    if without_time > 0 {
        writeln!(out, "{without_time} rows have no time and are in no range")?;
    }
    writeln!(out)?;
    write_names(out, findings, screen)?;
    match &findings.timeline {
        Some(timeline) => write_timeline(out, timeline, screen),
        None => Ok(()),
    }
}

fn write_names(out: &mut dyn Write, findings: &Findings, screen: Screen) -> Result<(), QueryError> {
    let line = |title: &str, figures: &Figures| Line {
        title: title.to_owned(),
        cells: cells(figures),
        bar: Some(figures.events),
    };
    let listed = findings.listed.iter();
    let mut lines: Vec<Line> = listed
        .map(|named| line(&named.name, &named.figures))
        .collect();
    let names_count = lines.len();
    if findings.others_count > 0 {
        let title = format!("others ({})", findings.others_count);
        lines.push(line(&title, &findings.others));
    }
    lines.push(Line {
        bar: None,
        ..line("total", &findings.total)
    });

    let widths: [usize; HEADS.len()] = std::array::from_fn(|index| {
        let cells = lines.iter().map(|line| line.cells[index].len());
        cells.max().unwrap_or_default().max(HEADS[index].len())
    });
    let cells_width = widths.iter().map(|width| width + 2).sum::<usize>();
    // Two blanks are before a bar.
    let room = |columns: usize| columns.saturating_sub(cells_width + 2);
    let names_room = screen.columns.map_or(0, room).saturating_sub(BAR_WIDTH_MIN);
    let name_width = names_room.clamp(*NAME_WIDTH.start(), *NAME_WIDTH.end());
    for line in lines.iter_mut().take(names_count) {
        line.title = screen.name(&line.title, name_width);
    }
    let titles = lines.iter().map(|line| line.title.width());
    let title_width = titles.max().unwrap_or_default().max("NAME".len());
    let bar_width = screen
        .columns
        .map(|columns| room(columns).saturating_sub(title_width));
    let bar_width = bar_width.filter(|&width| width >= BAR_WIDTH_MIN);
    let longest = lines
        .iter()
        .filter_map(|line| line.bar)
        .max()
        .unwrap_or_default();

    let head = right(&HEADS.map(str::to_owned), widths);
    writeln!(out, "{}{head}", padded("NAME", title_width))?;
    for line in &lines {
        let bar = match (bar_width, line.bar) {
            (Some(width), Some(events)) => screen.bar(events, longest, width),
            _ => String::new(),
        };
        let (title, cells) = (padded(&line.title, title_width), right(&line.cells, widths));
        writeln!(out, "{}", format!("{title}{cells}  {bar}").trim_end())?;
    }
    Ok(())
}

/// Cells, each flush right in its column.
fn right(cells: &[String; HEADS.len()], widths: [usize; HEADS.len()]) -> String {
    let cells = cells.iter().zip(widths);
    cells
        .map(|(cell, width)| format!("  {cell:>width$}"))
        .collect()
}

fn cells(figures: &Figures) -> [String; HEADS.len()] {
    let number = |number: Option<i128>| number.map_or("-".to_owned(), |number| number.to_string());
    [
        figures.events.to_string(),
        figures.sum.to_string(),
        number(figures.minimum),
        number(figures.maximum),
        figures
            .average()
            .map_or("-".to_owned(), |average| format!("{average:.2}")),
    ]
}

fn write_timeline(
    out: &mut dyn Write,
    timeline: &Timeline,
    screen: Screen,
) -> Result<(), QueryError> {
    let columns = &timeline.columns;
    let (Some(first), Some(last)) = (columns.first(), columns.last()) else {
        return Ok(());
    };
    // The first of the largest columns.
    let peak = columns
        .iter()
        .rev()
        .max_by_key(|column| column.events)
        .unwrap_or(first);
    let plot = columns
        .iter()
        .map(|column| screen.spark(column.events, peak.events));
    let plot: String = plot.collect();
    let (width, events, at) = (timeline.width, peak.events, &peak.at);
    let (first, last) = (&first.at, &last.at);
    writeln!(
        out,
        "\nevents by {width}, {first} to {last}; most: {events} at {at}"
    )?;
    writeln!(out, "|{plot}|")?;
    Ok(())
}
