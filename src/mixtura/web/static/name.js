/** Names that people give, compared as the server compares them. */

// Format characters, but for the tags of flags, and other characters that nobody sees.
const INVISIBLE =
  /[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\u{e0100}-\u{e01ef}]/gu;

/** What two spellings of one name have in common, by the rule of the server (mixtura.names.same_name_key). */
export function nameKey(text) {
  const visible = text.replace(INVISIBLE, "").trim().replace(/\s+/g, " ");
  return visible.normalize("NFD").toUpperCase().toLowerCase().normalize("NFC");
}
