//! What kind of photo or video a file is, told by its content rather than by its name.

use serde::{Deserialize, Serialize};

/// Bytes from a file's start that [`MediaType::sniff`] looks at; fewer are fine when the file is shorter.
pub const SNIFF_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Still,
    Raw,
    Video,
}

macro_rules! media_types {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $family:ident, $mime:literal, [$($extension:literal),+];)+) => {
        /// The format of a photo or video.
        ///
        /// Travels as a number, so that a format which only newer nodes know survives a visit to an older one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "u16", into = "u16")]
        pub enum MediaType {
            $($(#[$doc])* $variant,)+
            /// A format that a newer version of Holdfast named.
            Other(u16),
        }

        impl MediaType {
            /// Every format that this version knows.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The number that stands for the format on disk and on the wire.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self {
                    $(Self::$variant => $code,)+
                    Self::Other(code) => code,
                }
            }

            /// The MIME type.
            #[must_use]
            pub const fn mime(self) -> &'static str {
                match self {
                    $(Self::$variant => $mime,)+
                    Self::Other(_) => "application/octet-stream",
                }
            }

            /// The format's usual file name extensions in lower case, the commonest first.
            #[must_use]
            pub const fn extensions(self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant => &[$($extension),+],)+
                    Self::Other(_) => &[],
                }
            }

            const fn family(self) -> Option<Family> {
                match self {
                    $(Self::$variant => Some(Family::$family),)+
                    Self::Other(_) => None,
                }
            }
        }

        impl From<u16> for MediaType {
            fn from(code: u16) -> Self {
                match code {
                    $($code => Self::$variant,)+
                    other => Self::Other(other),
                }
            }
        }
    };
}

media_types! {
    /// JPEG.
    Jpeg = 1, Still, "image/jpeg", ["jpg", "jpeg", "jpe", "jfif", "mpo"];
    /// PNG.
    Png = 2, Still, "image/png", ["png"];
    /// WebP.
    Webp = 3, Still, "image/webp", ["webp"];
    /// GIF.
    Gif = 4, Still, "image/gif", ["gif"];
    /// HEIC and other HEIF with HEVC inside.
    Heic = 5, Still, "image/heic", ["heic", "heif", "hif", "heics", "heifs"];
    /// AVIF.
    Avif = 6, Still, "image/avif", ["avif"];
    /// TIFF that is no camera's RAW format.
    Tiff = 7, Still, "image/tiff", ["tif", "tiff"];
    /// JPEG XL.
    JpegXl = 8, Still, "image/jxl", ["jxl"];
    /// JPEG 2000.
    Jpeg2000 = 9, Still, "image/jp2", ["jp2", "j2k", "jpf"];
    /// Windows bitmap.
    Bmp = 10, Still, "image/bmp", ["bmp"];
    /// Photoshop.
    Psd = 11, Still, "image/vnd.adobe.photoshop", ["psd", "psb"];
    /// Adobe Digital Negative, also of phones.
    Dng = 32, Raw, "image/x-adobe-dng", ["dng"];
    /// Canon, TIFF based.
    Cr2 = 33, Raw, "image/x-canon-cr2", ["cr2"];
    /// Canon, ISO base media based.
    Cr3 = 34, Raw, "image/x-canon-cr3", ["cr3"];
    /// Canon, before CR2.
    Crw = 35, Raw, "image/x-canon-crw", ["crw"];
    /// Fujifilm.
    Raf = 36, Raw, "image/x-fuji-raf", ["raf"];
    /// Nikon.
    Nef = 37, Raw, "image/x-nikon-nef", ["nef", "nrw"];
    /// Minolta.
    Mrw = 38, Raw, "image/x-minolta-mrw", ["mrw"];
    /// Panasonic.
    Rw2 = 39, Raw, "image/x-panasonic-rw2", ["rw2", "raw", "rwl"];
    /// Phase One.
    Iiq = 40, Raw, "image/x-phaseone-iiq", ["iiq"];
    /// Sigma.
    X3f = 41, Raw, "image/x-sigma-x3f", ["x3f"];
    /// Sony.
    Arw = 42, Raw, "image/x-sony-arw", ["arw", "sr2", "srf"];
    /// Olympus.
    Orf = 43, Raw, "image/x-olympus-orf", ["orf"];
    /// Pentax.
    Pef = 44, Raw, "image/x-pentax-pef", ["pef"];
    /// Samsung.
    Srw = 45, Raw, "image/x-samsung-srw", ["srw"];
    /// Hasselblad.
    ThreeFr = 46, Raw, "image/x-hasselblad-3fr", ["3fr", "fff"];
    /// MPEG-4.
    Mp4 = 64, Video, "video/mp4", ["mp4", "m4v"];
    /// QuickTime.
    Mov = 65, Video, "video/quicktime", ["mov", "qt"];
    /// 3GPP.
    ThreeGp = 66, Video, "video/3gpp", ["3gp", "3g2"];
    /// Matroska.
    Mkv = 67, Video, "video/x-matroska", ["mkv"];
    /// WebM.
    Webm = 68, Video, "video/webm", ["webm"];
    /// AVI.
    Avi = 69, Video, "video/x-msvideo", ["avi"];
    /// MPEG transport stream, as AVCHD camcorders write it.
    Mts = 70, Video, "video/mp2t", ["mts", "m2ts", "ts"];
    /// MPEG program stream.
    Mpeg = 71, Video, "video/mpeg", ["mpg", "mpeg", "vob", "mod"];
    /// Windows Media.
    Wmv = 72, Video, "video/x-ms-wmv", ["wmv", "asf"];
    /// Flash video.
    Flv = 73, Video, "video/x-flv", ["flv"];
}

impl From<MediaType> for u16 {
    fn from(media: MediaType) -> Self {
        media.code()
    }
}

impl MediaType {
    /// The format of a file that starts with `head` ([`SNIFF_BYTES`] of it are enough), `None` when it is neither a
    /// photo nor a video.
    ///
    /// Content decides. `extension` (without the dot, any case) only tells apart RAW formats that look alike from
    /// their first bytes, and names files whose content says nothing known.
    #[must_use]
    pub fn sniff(head: &[u8], extension: Option<&str>) -> Option<Self> {
        let named = extension.and_then(Self::from_extension);
        match content(head) {
            Content::Known(media) => Some(media),
            // Most RAW formats are TIFF inside: the camera's extension says which.
            Content::TiffBased => match named {
                Some(media) if media.is_raw() => Some(media),
                _ => Some(tiff_flavour(head)),
            },
            Content::NotMedia => None,
            // `.ts` is more often a program's source than a recording, and its content is easily told.
            Content::Unknown => {
                named.filter(|_| !extension.is_some_and(|extension| extension.eq_ignore_ascii_case("ts")))
            }
        }
    }

    /// The format that files named `….extension` usually have.
    #[must_use]
    pub fn from_extension(extension: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|media| media.extensions().iter().any(|known| known.eq_ignore_ascii_case(extension)))
    }

    /// Whether it is a picture: still or RAW.
    #[must_use]
    pub const fn is_photo(self) -> bool {
        matches!(self.family(), Some(Family::Still | Family::Raw))
    }

    /// Whether it is what a camera's sensor saw, before development.
    #[must_use]
    pub const fn is_raw(self) -> bool {
        matches!(self.family(), Some(Family::Raw))
    }

    /// Whether it moves.
    #[must_use]
    pub const fn is_video(self) -> bool {
        matches!(self.family(), Some(Family::Video))
    }
}

enum Content {
    Known(MediaType),
    TiffBased,
    /// Certainly something else, whatever its name says.
    NotMedia,
    Unknown,
}

fn content(head: &[u8]) -> Content {
    use MediaType as M;
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let known = match head {
        _ if at(0, b"\xff\xd8\xff") => M::Jpeg,
        _ if at(0, b"\x89PNG\r\n\x1a\n") => M::Png,
        _ if at(0, b"RIFF") && at(8, b"WEBP") => M::Webp,
        _ if at(0, b"RIFF") && at(8, b"AVI ") => M::Avi,
        _ if at(0, b"GIF87a") || at(0, b"GIF89a") => M::Gif,
        _ if at(0, b"\xff\x0a") || at(0, b"\0\0\0\x0cJXL \r\n\x87\n") => M::JpegXl,
        _ if at(0, b"\0\0\0\x0cjP  \r\n\x87\n") || at(0, b"\xff\x4f\xff\x51") => M::Jpeg2000,
        _ if at(0, b"8BPS") => M::Psd,
        _ if at(0, b"FUJIFILMCCD-RAW") => M::Raf,
        _ if at(0, b"\0MRM") => M::Mrw,
        _ if at(0, b"FOVb") => M::X3f,
        _ if at(6, b"HEAPCCDR") => M::Crw,
        _ if at(0, b"IIU\0") => M::Rw2,
        _ if at(0, b"IIRO") || at(0, b"IIRS") || at(0, b"MMOR") => M::Orf,
        _ if at(0, b"\x1a\x45\xdf\xa3") => matroska(head),
        _ if at(4, b"ftyp") => return iso_media(head).map_or(Content::Unknown, Content::Known),
        _ if [&b"moov"[..], b"mdat", b"wide", b"free", b"skip", b"pnot"].iter().any(|name| at(4, name)) => M::Mov,
        _ if at(0, b"\0\0\x01\xba") => M::Mpeg,
        _ if at(0, b"\0\0\x01\xb3") => M::Mpeg,
        _ if at(0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11") => M::Wmv,
        _ if at(0, b"FLV\x01") => M::Flv,
        // Transport streams: the sync byte of three packets, of 188 bytes or of 192 with a time code before each.
        _ if at(0, b"\x47") && at(188, b"\x47") && at(376, b"\x47") => M::Mts,
        _ if at(4, b"\x47") && at(196, b"\x47") && at(388, b"\x47") => M::Mts,
        _ if at(0, b"BM") && at(6, b"\0\0\0\0") => M::Bmp,
        _ if at(0, b"II*\0") || at(0, b"MM\0*") || at(0, b"II+\0") || at(0, b"MM\0+") => return Content::TiffBased,
        _ if at(0, b"%PDF") || at(0, b"PK\x03\x04") || at(0, b"\x7fELF") || at(0, b"MZ") || at(0, b"#!") => {
            return Content::NotMedia;
        }
        _ => return Content::Unknown,
    };
    Content::Known(known)
}

/// WebM says so in its document type, within the first bytes.
fn matroska(head: &[u8]) -> MediaType {
    let start = &head[..head.len().min(64)];
    if start.windows(4).any(|bytes| bytes == b"webm") { MediaType::Webm } else { MediaType::Mkv }
}

/// The format of an ISO base media file by its brands: the major one first, then the compatible ones.
fn iso_media(head: &[u8]) -> Option<MediaType> {
    let length = u32::from_be_bytes(head.get(..4)?.try_into().ok()?) as usize;
    let brands = head.get(8..length.clamp(8, head.len()))?;
    // The second word is the minor version.
    let brands = || brands.chunks_exact(4).enumerate().filter(|(index, _)| *index != 1).map(|(_, brand)| brand);
    let still = || brands().any(|brand| brand == b"mif1" || brand == b"msf1");
    brands().find_map(brand).or_else(|| Some(if still() { MediaType::Heic } else { MediaType::Mp4 }))
}

fn brand(brand: &[u8]) -> Option<MediaType> {
    Some(match brand {
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" => MediaType::Heic,
        b"avif" | b"avis" => MediaType::Avif,
        b"crx " => MediaType::Cr3,
        b"qt  " => MediaType::Mov,
        b"isom" | b"iso2" | b"mp41" | b"mp42" | b"avc1" | b"M4V " | b"MSNV" | b"XAVC" => MediaType::Mp4,
        _ if brand.starts_with(b"3g") => MediaType::ThreeGp,
        _ => return None,
    })
}

/// Which TIFF it is when the name does not say: RAW formats leave their mark in the header or the camera's name.
fn tiff_flavour(head: &[u8]) -> MediaType {
    let contains = |needle: &[u8]| head.windows(needle.len()).any(|bytes| bytes == needle);
    if head.get(8..10) == Some(b"CR") {
        MediaType::Cr2
    } else if head.get(8..12) == Some(b"IIII") {
        MediaType::Iiq
    } else if first_directory_has(head, 50706) {
        MediaType::Dng
    } else if contains(b"NIKON CORPORATION\0") && first_directory_has(head, 330) {
        MediaType::Nef
    } else if contains(b"SONY\0") && first_directory_has(head, 330) {
        MediaType::Arw
    } else {
        MediaType::Tiff
    }
}

/// Whether the first directory of a classic TIFF, as far as `head` shows it, has an entry for `tag`.
fn first_directory_has(head: &[u8], tag: u16) -> bool {
    let little = head.starts_with(b"II");
    let short = |at: usize| {
        let bytes: [u8; 2] = head.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes: [u8; 4] = head.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let Some(directory) = long(4).and_then(|offset| usize::try_from(offset).ok()) else { return false };
    let Some(entries) = short(directory) else { return false };
    (0..usize::from(entries))
        .map_while(|entry| short(directory.checked_add(2)?.checked_add(entry * 12)?))
        .any(|found| found == tag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn codes_are_stable_and_unknown_ones_survive() {
        for media in MediaType::ALL {
            assert_eq!(MediaType::from(media.code()), *media);
            assert!(media.is_photo() != media.is_video());
        }
        assert_eq!(MediaType::from(999).code(), 999);
        assert_eq!(MediaType::Jpeg.code(), 1);
        assert_eq!(MediaType::Mp4.code(), 64);
    }

    #[test]
    fn content_goes_before_the_name() {
        let jpeg = b"\xff\xd8\xff\xe1";
        assert_eq!(MediaType::sniff(jpeg, Some("png")), Some(MediaType::Jpeg));
        assert_eq!(MediaType::sniff(b"#!/bin/sh", Some("jpg")), None);
        assert_eq!(MediaType::sniff(b"garbage", Some("JPG")), Some(MediaType::Jpeg));
        assert_eq!(MediaType::sniff(b"", Some("heic")), Some(MediaType::Heic));
        assert_eq!(MediaType::sniff(b"export const x = 1", Some("ts")), None);
        assert_eq!(MediaType::sniff(b"hello", Some("txt")), None);
        assert_eq!(MediaType::sniff(b"hello", None), None);
    }

    #[test]
    fn brands_tell_iso_media_apart() {
        let file = |major: &[u8; 4], compatible: &[u8]| {
            let mut head = (16 + compatible.len() as u32).to_be_bytes().to_vec();
            head.extend_from_slice(b"ftyp");
            head.extend_from_slice(major);
            head.extend_from_slice(&[0; 4]);
            head.extend_from_slice(compatible);
            MediaType::sniff(&head, None)
        };
        assert_eq!(file(b"heic", b"mif1heic"), Some(MediaType::Heic));
        assert_eq!(file(b"mif1", b"mif1heic"), Some(MediaType::Heic));
        assert_eq!(file(b"mif1", b"avifmif1"), Some(MediaType::Avif));
        assert_eq!(file(b"qt  ", b"qt  "), Some(MediaType::Mov));
        assert_eq!(file(b"crx ", b"isom"), Some(MediaType::Cr3));
        assert_eq!(file(b"3gp4", b"isom"), Some(MediaType::ThreeGp));
        assert_eq!(file(b"what", b""), Some(MediaType::Mp4));
    }

    proptest! {
        #[test]
        fn sniffing_never_panics(head in proptest::collection::vec(any::<u8>(), 0..600), prefix in 0usize..6) {
            let magics: [&[u8]; 6] = [b"", b"II*\0", b"MM\0*", b"\0\0\0\x18ftyp", b"\x1a\x45\xdf\xa3", b"RIFF"];
            let head = [magics[prefix], &head].concat();
            let _ = MediaType::sniff(&head, None);
            let _ = MediaType::sniff(&head, Some("nef"));
        }
    }
}
