//! Columns as kubectl and storkctl print them: no borders, three spaces between, no padding after the last.

const SPACES_BETWEEN: usize = 3;
const CELL_WIDTH_MIN: usize = 6;

/// Rows under headers, each line with its newline.
///
/// # Panics
/// When a row has not as many cells as there are headers.
pub fn render(headers: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..headers.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            let widest = cells.chain([headers[column].len()]).max().unwrap_or(0);
            (widest + SPACES_BETWEEN).max(CELL_WIDTH_MIN)
        })
        .collect();
    let mut text = String::new();
    line(&mut text, &widths, headers.iter().copied());
    for row in rows {
        assert_eq!(row.len(), headers.len(), "a row has a cell for each header");
        line(&mut text, &widths, row.iter().map(String::as_str));
    }
    text
}

fn line<'a>(text: &mut String, widths: &[usize], cells: impl Iterator<Item = &'a str>) {
    let last = widths.len() - 1;
    for (column, cell) in cells.enumerate() {
        text.push_str(cell);
        if column < last {
            text.extend(std::iter::repeat_n(
                ' ',
                widths[column] - cell.chars().count(),
            ));
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_three_spaces() {
        let rows = vec![vec!["test1".to_owned(), "zone1".to_owned(), String::new()]];
        assert_eq!(
            render(&["NAME", "LOCAL-DOMAIN", "CREATED"], &rows),
            "NAME    LOCAL-DOMAIN   CREATED\ntest1   zone1          \n"
        );
        assert_eq!(render(&["A", "B"], &[]), "A     B\n");
    }
}
