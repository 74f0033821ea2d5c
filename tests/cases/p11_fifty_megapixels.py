"""mattermost#2365 (limit raised for camera phones), baserow#3013, paperless-ngx#416, ComfyUI_UltimateSDUpscale#113: photos of ordinary cameras above the limit.
8160 x 6144 (Pixel, 50 MP mode), 8192 x 6144 (Samsung GN1), 9504 x 6336 (Sony A7R IV)."""

import io

from common import caught, check, end
from PIL import Image

from mixtura.datasets.decode import decode

for w, h, who in (
    (8064, 6048, "iPhone 48 MP"),
    (8160, 6144, "50 MP phone"),
    (8192, 6144, "50 MP phone"),
    (9504, 6336, "61 MP camera"),
):
    f = io.BytesIO()
    Image.new("RGB", (w, h), (200, 90, 40)).save(f, "JPEG", quality=60)
    s = caught(lambda: decode(f.getvalue(), draft=224))
    check(f"{w} x {h} ({who})", not isinstance(s, Exception), s if isinstance(s, Exception) else s.size)
end()
