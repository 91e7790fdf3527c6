//! The report for programs. Numbers are exact: sums may exceed 2^53, so they are strings in JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::Findings;
use super::figures::Figures;
use crate::commands::query::QueryError;

/// Writes one JSON document.
pub(super) fn write_json(out: &mut dyn Write, findings: &Findings) -> Result<(), QueryError> {
    let civil = |bound: &Option<crate::commands::query::moment::Bound>| {
        bound.as_ref().map(|bound| bound.civil.clone())
    };
    let names = findings.listed.iter().map(|named| {
        let mut row = json!({ "name": named.name });
        append(&mut row, &named.figures);
        row
    });
    let names: Vec<Value> = names.collect();
    let mut others = json!({ "names": findings.others_count });
    append(&mut others, &findings.others);
    let mut total = json!({ "names": findings.names_count });
    append(&mut total, &findings.total);
    let timeline = findings.timeline.as_ref().map(|timeline| {
        let columns = timeline.columns.iter().map(|column| {
            json!({ "at": column.at, "events": column.events, "sum": column.sum.to_string() })
        });
        json!({ "column_seconds": timeline.seconds, "columns": columns.collect::<Vec<Value>>() })
    });
    let document = json!({
        "datasource": findings.place,
        "from": civil(&findings.range.from),
        "to": civil(&findings.range.to),
        "time_zone": findings.zone,
        "names": names,
        "others": others,
        "total": total,
        "timeline": timeline,
    });
    Ok(writeln!(out, "{document:#}")?)
}

fn append(row: &mut Value, figures: &Figures) {
    let number = |number: Option<i128>| number.and_then(|number| i64::try_from(number).ok());
    row["events"] = figures.events.into();
    row["sum"] = figures.sum.to_string().into();
    row["minimum"] = number(figures.minimum).into();
    row["maximum"] = number(figures.maximum).into();
    row["average"] = figures.average().into();
    row["first"] = figures.first.clone().into();
    row["last"] = figures.last.clone().into();
    row["without_time"] = figures.without_time.into();
}

/// Writes a row for each listed name, one for the others and one for the total. The first column has the kind of row.
pub(super) fn write_csv(out: &mut dyn Write, findings: &Findings) -> Result<(), QueryError> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(out);
    let mut write = |row: [String; 9]| writer.write_record(row).map_err(io::Error::from);
    let head = [
        "row", "name", "events", "sum", "minimum", "maximum", "average", "first", "last",
    ];
    write(head.map(str::to_owned))?;
    for named in &findings.listed {
        write(csv_row("name", &named.name, &named.figures))?;
    }
    if findings.others_count > 0 {
        write(csv_row("others", "", &findings.others))?;
    }
    write(csv_row("total", "", &findings.total))?;
    Ok(writer.flush()?)
}

fn csv_row(row: &str, name: &str, figures: &Figures) -> [String; 9] {
    let number = |number: Option<i128>| number.map(|number| number.to_string()).unwrap_or_default();
    [
        row.to_owned(),
        name.to_owned(),
        figures.events.to_string(),
        figures.sum.to_string(),
        number(figures.minimum),
        number(figures.maximum),
        figures
            .average()
            .map(|average| average.to_string())
            .unwrap_or_default(),
        figures.first.clone().unwrap_or_default(),
        figures.last.clone().unwrap_or_default(),
    ]
}
