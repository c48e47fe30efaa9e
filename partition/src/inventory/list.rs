//! Sets of CPUs or nodes as text, `0-3,8`: the form of the kernel's files and of people.

use std::collections::BTreeSet;

/// Numbers as the kernel writes a set of them: `0-3,8`.
#[must_use]
pub(crate) fn list_text(numbers: impl IntoIterator<Item = usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

/// Reads a set as the kernel (or a person) writes it; `None` if it is not one, runs backwards, or reaches beyond 65,535.
#[must_use]
pub(crate) fn parse_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut numbers = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (
            first.trim().parse::<u16>().ok()?,
            last.trim().parse::<u16>().ok()?,
        );
        if first > last {
            return None;
        }
        numbers.extend((first..=last).map(usize::from));
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_single_numbers_and_a_line_end_are_read() {
        let set = parse_list(" 0-2,5,\t8 - 9\n").unwrap();
        assert_eq!(set.into_iter().collect::<Vec<_>>(), [0, 1, 2, 5, 8, 9]);
    }

    #[test]
    fn an_empty_file_is_the_empty_set() {
        for text in ["", "\n", ",,"] {
            assert_eq!(parse_list(text), Some(BTreeSet::new()), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_set_is_none_and_not_a_part_of_one() {
        for text in [
            "x", "1,x", "3-1", "1-", "-1", "1-2-3", "65536", "0-70000", "1.5", "0x1", "١",
        ] {
            assert_eq!(parse_list(text), None, "{text:?}");
        }
    }

    #[test]
    fn neighbours_are_written_as_a_range_also_at_the_end() {
        assert_eq!(list_text([0, 1, 2, 4, 6, 7]), "0-2,4,6-7");
        assert_eq!(list_text([]), "");
    }

    proptest! {
        #[test]
        fn a_set_survives_being_written_and_read(set in prop::collection::btree_set(0usize..=65_535, 0..60)) {
            let text = list_text(set.iter().copied());
            prop_assert_eq!(parse_list(&text), Some(set));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[0-9, -]{0,30}|.{0,30}") {
            let _ = parse_list(&text);
        }
    }
}
