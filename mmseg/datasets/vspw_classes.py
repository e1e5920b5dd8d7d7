"""Names and colours of the 124 classes of VSPW, in label order (network label 0..123 = raw label 1..124)."""

from __future__ import annotations

_NAMES = """
    wall ceiling door stair ladder escalator Playground_slide handrail_or_fence window rail goal pillar pole floor
    ground grass sand athletic_field road path crosswalk building house bridge tower windmill well_or_well_lid
    other_construction sky mountain stone wood ice snowfield grandstand sea river lake waterfall water
    billboard_or_Bulletin_Board sculpture pipeline flag parasol_or_umbrella cushion_or_carpet tent roadblock car bus
    truck bicycle motorcycle wheeled_machine ship_or_boat raft airplane tyre traffic_light lamp person cat dog horse
    cattle other_animal tree flower other_plant toy ball_net backboard skateboard bat ball
    cupboard_or_showcase_or_storage_rack box traveling_case_or_trolley_case basket bag_or_package trash_can cage
    plate tub_or_bowl_or_pot bottle_or_cup barrel fishbowl bed pillow table_or_desk chair_or_seat bench sofa shelf
    bathtub gun commode roaster other_machine refrigerator washing_machine Microwave_oven fan curtain textiles
    clothes painting_or_poster mirror flower_pot_or_vase clock book tool blackboard tissue screen_or_television
    computer printer Mobile_phone keyboard other_electronic_product fruit food instrument train
"""

# 24-bit RGB: the first 124 colours of the ADE20K-150 palette (one of them comes twice).
_COLOURS = """
    787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 08ff33 ff0652
    8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff 08ffd6 07ffe0
    ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff eb0cff a09614 00a3ff
    8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff 0bc8c8 ff5200 00fff5 003dff
    00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad 0a00ff adff00 00ff99 ff5c00 ff00ff
    ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2 00ff52 000aff 0070ff 3300ff 00c2ff 007aff
    00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa 8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070
    5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3 ffcc00 ff008f 00ffeb 85ff00
"""

CLASSES: tuple[str, ...] = tuple(_NAMES.split())
PALETTE: list[list[int]] = [list(bytes.fromhex(colour)) for colour in _COLOURS.split()]
