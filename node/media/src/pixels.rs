//! A picture in memory, and the integer arithmetic that shrinks and turns it.
//!
//! No floating point: equal pictures give equal thumbnails on every machine.

/// Rows of RGB bytes, from the top left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pixels {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rgb: Vec<u8>,
}

impl Pixels {
    /// From RGBA bytes, laid on white.
    pub(super) fn on_white(width: u32, height: u32, rgba: &[u8]) -> Self {
        let rgb = rgba
            .chunks_exact(4)
            .flat_map(|pixel| {
                let alpha = u32::from(pixel[3]);
                [pixel[0], pixel[1], pixel[2]]
                    .map(|level| ((u32::from(level) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
            })
            .collect();
        Self { width, height, rgb }
    }

    /// Shrunk so that the longest side is at most `side`; never enlarged.
    pub(super) fn fitted(self, side: u32) -> Self {
        let longest = self.width.max(self.height);
        if longest <= side {
            return self;
        }
        let fit = |length: u32| {
            let scaled = (u64::from(length) * u64::from(side) * 2 + u64::from(longest)) / (u64::from(longest) * 2);
            (scaled as u32).max(1)
        };
        self.scaled_to(fit(self.width), fit(self.height))
    }

    /// Shrunk to `width` × `height`, both at most the present ones: every new pixel is the exact mean of the area it
    /// covers.
    pub(super) fn scaled_to(&self, width: u32, height: u32) -> Self {
        let (from_width, from_height) = (self.width as usize, self.height as usize);
        let (to_width, to_height) = (width as usize, height as usize);
        let columns = Coverage::all(from_width, to_width);
        let mut rgb = Vec::with_capacity(to_width * to_height * 3);
        let mut row = vec![0u32; to_width * 3];
        let mut sums = vec![0u64; to_width * 3];
        let mut row_at = usize::MAX;
        for lines in Coverage::all(from_height, to_height) {
            sums.fill(0);
            for (offset, weight) in lines.weights(from_height, to_height) {
                let line = lines.first + offset;
                if row_at != line {
                    shrink_row(&self.rgb[line * from_width * 3..][..from_width * 3], &columns, to_width, &mut row);
                    row_at = line;
                }
                sums.iter_mut().zip(&row).for_each(|(sum, &level)| *sum += u64::from(level) * weight as u64);
            }
            let area = (from_width * from_height) as u64;
            rgb.extend(sums.iter().map(|&sum| ((sum + area / 2) / area) as u8));
        }
        Self { width, height, rgb }
    }

    /// Turned and mirrored as the EXIF orientation (1 to 8) asks; any other number changes nothing.
    pub(super) fn oriented(self, orientation: u8) -> Self {
        if !(2..=8).contains(&orientation) {
            return self;
        }
        let (width, height) = (self.width as usize, self.height as usize);
        let (to_width, to_height) = if orientation >= 5 { (height, width) } else { (width, height) };
        let mut rgb = Vec::with_capacity(self.rgb.len());
        for y in 0..to_height {
            for x in 0..to_width {
                let (from_x, from_y) = match orientation {
                    2 => (width - 1 - x, y),
                    3 => (width - 1 - x, height - 1 - y),
                    4 => (x, height - 1 - y),
                    5 => (y, x),
                    6 => (y, height - 1 - x),
                    7 => (width - 1 - y, height - 1 - x),
                    _ => (width - 1 - y, x),
                };
                rgb.extend_from_slice(&self.rgb[(from_y * width + from_x) * 3..][..3]);
            }
        }
        Self { width: to_width as u32, height: to_height as u32, rgb }
    }
}

/// What one new pixel covers of the old ones along one axis. Lengths are in units of which an old pixel has as many as
/// there are new pixels, and a new pixel as many as there are old ones, so that every share is a whole number.
struct Coverage {
    index: usize,
    first: usize,
    last: usize,
}

impl Coverage {
    fn all(from: usize, to: usize) -> Vec<Self> {
        (0..to).map(|index| Self { index, first: index * from / to, last: ((index + 1) * from - 1) / to }).collect()
    }

    /// Each old pixel covered, counted from the first, and its share.
    fn weights(&self, from: usize, to: usize) -> impl Iterator<Item = (usize, usize)> {
        let (begin, end, first) = (self.index * from, (self.index + 1) * from, self.first);
        (first..=self.last).map(move |pixel| (pixel - first, ((pixel + 1) * to).min(end) - (pixel * to).max(begin)))
    }
}

fn shrink_row(line: &[u8], columns: &[Coverage], to_width: usize, row: &mut [u32]) {
    let from_width = line.len() / 3;
    for (column, levels) in columns.iter().zip(row.chunks_exact_mut(3)) {
        let mut sum = [0u32; 3];
        for (offset, weight) in column.weights(from_width, to_width) {
            let pixel = &line[(column.first + offset) * 3..][..3];
            sum.iter_mut().zip(pixel).for_each(|(sum, &level)| *sum += u32::from(level) * weight as u32);
        }
        levels.copy_from_slice(&sum);
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::Pixels;

    /// A picture with slopes, edges and colour.
    pub(crate) fn picture(width: u32, height: u32) -> Pixels {
        let mut rgb = Vec::with_capacity((width * height * 3) as usize);
        for y in 0..height {
            for x in 0..width {
                let disc = (x as i64 - i64::from(width / 3)).pow(2) + (y as i64 - i64::from(height / 2)).pow(2);
                let inside = disc < i64::from(height / 4).pow(2);
                rgb.push((x * 255 / width) as u8);
                rgb.push((y * 255 / height) as u8);
                rgb.push(if inside { 220 } else { ((x / 16 + y / 16) % 2 * 60) as u8 });
            }
        }
        Pixels { width, height, rgb }
    }

    pub(crate) fn encode_jpeg(pixels: &Pixels, quality: u8) -> Vec<u8> {
        let mut jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, quality)
            .encode(&pixels.rgb, pixels.width, pixels.height, image::ExtendedColorType::Rgb8)
            .unwrap();
        jpeg
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::picture, *};

    fn numbered(width: u32, height: u32) -> Pixels {
        Pixels { width, height, rgb: (0..width * height).flat_map(|index| [index as u8; 3]).collect() }
    }

    fn levels(pixels: &Pixels) -> Vec<u8> {
        pixels.rgb.chunks_exact(3).map(|pixel| pixel[0]).collect()
    }

    #[test]
    fn every_orientation_turns_as_exif_says() {
        // 0 1 2
        // 3 4 5
        let expected: [&[u8]; 8] = [
            &[0, 1, 2, 3, 4, 5],
            &[2, 1, 0, 5, 4, 3],
            &[5, 4, 3, 2, 1, 0],
            &[3, 4, 5, 0, 1, 2],
            &[0, 3, 1, 4, 2, 5],
            &[3, 0, 4, 1, 5, 2],
            &[5, 2, 4, 1, 3, 0],
            &[2, 5, 1, 4, 0, 3],
        ];
        for (orientation, expected) in (1..).zip(expected) {
            let turned = numbered(3, 2).oriented(orientation);
            assert_eq!(levels(&turned), expected, "orientation {orientation}");
            assert_eq!(turned.width, if orientation >= 5 { 2 } else { 3 });
        }
    }

    #[test]
    fn shrinking_takes_exact_means() {
        let shrunk = Pixels { width: 3, height: 1, rgb: vec![0, 0, 0, 90, 90, 90, 30, 30, 30] }.scaled_to(2, 1);
        assert_eq!(levels(&shrunk), [30, 50]);
        let flat = Pixels { width: 101, height: 67, rgb: vec![77; 101 * 67 * 3] }.fitted(32);
        assert_eq!((flat.width, flat.height), (32, 21));
        assert!(flat.rgb.iter().all(|&level| level == 77));
    }

    #[test]
    fn nothing_is_enlarged_and_nothing_vanishes() {
        assert_eq!(picture(40, 30).fitted(512), picture(40, 30));
        let thin = picture(2000, 1).fitted(512);
        assert_eq!((thin.width, thin.height), (512, 1));
    }
}
