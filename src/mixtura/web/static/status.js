/** Where a product comes from, in words. */

const STATUS_LABELS = {
  fitted: "from your folders",
  provisional: "provisional",
  confirmed: "confirmed",
};

export const statusLabel = (status) => STATUS_LABELS[status] ?? status;
