//! A QR code (ISO/IEC 18004) in a terminal, two modules a character.

use qrcodegen::{QrCode, QrCodeEcc};

/// Light modules around the code; the standard asks for four, and readers are content with two.
const QUIET: i32 = 2;

/// The code of `text`, in lines; none where it is too long for one. With `colour` it is black on white whatever the
/// terminal's colours are; without, light modules are drawn, as fits a dark terminal.
pub(super) fn draw(text: &str, colour: bool) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let range = -QUIET..code.size() + QUIET;
    let mut out = String::new();
    for y in range.clone().step_by(2) {
        if colour {
            out.push_str("\u{1b}[40;97m");
        }
        for x in range.clone() {
            // Outside of the code everything is light; below the last row nothing is drawn.
            let light = |y: i32| y < range.end && !code.get_module(x, y);
            out.push(match (light(y), light(y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        if colour {
            out.push_str("\u{1b}[0m");
        }
        out.push('\n');
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_is_where_the_code_has_it() {
        let text = "otpauth://totp/mcias:alice?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=mcias";
        let code = QrCode::encode_text(text, QrCodeEcc::Low).unwrap();
        let drawn = draw(text, false).unwrap();
        let lines: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
        let module = |x: i32, y: i32| {
            let (column, row) = ((x + QUIET) as usize, (y + QUIET) as usize);
            let light = match lines[row / 2][column] {
                '█' => true,
                '▀' => row % 2 == 0,
                '▄' => row % 2 == 1,
                _ => false,
            };
            !light
        };
        for y in -QUIET..code.size() + QUIET {
            for x in -QUIET..code.size() + QUIET {
                assert_eq!(module(x, y), code.get_module(x, y), "{x} {y}");
            }
        }
        assert!(draw(&"x".repeat(8000), false).is_none());
        assert!(
            draw(text, true).unwrap().lines().all(|line| line.starts_with('\u{1b}') && line.ends_with("\u{1b}[0m"))
        );
    }
}
