//! Lines that a document or a script shows, with what is different every time left out.

/// Whether the line is what is shown, `…` standing for anything.
pub fn matches(line: &str, shown: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[test]
fn what_is_left_out_may_be_anything() {
    for (line, shown, same) in [
        ("abc", "abc", true),
        ("abcd", "abc", false),
        ("abc", "a…c", true),
        ("ac", "a…c", true),
        ("abd", "a…c", false),
        ("a.b", "a….….…", false),
        ("eya.b.c", "ey….….…", true),
        ("xabc", "a…c", false),
        ("", "", true),
    ] {
        assert_eq!(matches(line, shown), same, "{line} {shown}");
    }
}
