"""The words of product titles: departments, with their product types, variants, materials and looks."""

from dataclasses import dataclass

NUM_LOOKS, NUM_MATERIALS = 12, 8
# neighbouring colours look alike, because they represent similar styles
_COLOURS = "White, Cream, Yellow, Orange, Red, Pink, Purple, Navy, Blue, Teal, Green, Black"


@dataclass(frozen=True, kw_only=True)
class Department:
    """The words for product titles in a department."""

    types: tuple[str, ...]
    """Product types, such as sneakers. Neighbours in the list are related."""

    variants: tuple[str, ...]
    """Words that are put before each product type to get more products, such as `kids'`."""

    materials: tuple[str, ...]
    """Materials, such as canvas, or similar words. There are `NUM_MATERIALS`."""

    looks: tuple[str, ...]
    """Looks, such as colours. There are `NUM_LOOKS`. Neighbours in the list look alike."""

    @property
    def num_products(self) -> int:
        return len(self.types) * (1 + len(self.variants))

    def product(self, number: int) -> str:
        """Returns the name of product `number`. Types come first, then their variants, such as `kids' sneakers`."""
        variant, type_ = divmod(number, len(self.types))
        return f"{self.variants[variant - 1]} {self.types[type_]}" if variant else self.types[type_]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


def _department(types: str, variants: str, materials: str, looks: str = _COLOURS) -> Department:
    return Department(types=_words(types), variants=_words(variants), materials=_words(materials), looks=_words(looks))


SERIES = tuple(
    start + ending
    for ending in _words("ba, den, dor, fia, gar, ia, kas, len, lis, mon, na, nor, pa, ra, rik, sta, tis, to, vik, wen")
    for start in _words(
        "Al, Bren, Cor, Dal, El, Fen, Gal, Hol, Jor, Kel, Lum, Mar, Nor, Or, Pel, Quin, Ros, Sel, Tal, Vel"
    )
)
"""Invented names of product series."""

DEPARTMENTS = (
    _department(
        "sneakers, running shoes, tennis shoes, skate shoes, trail shoes, hiking boots, ankle boots, rain boots, "
        "snow boots, loafers, brogues, moccasins, ballet flats, pumps, espadrilles, sandals, flip-flops, clogs, "
        "slippers, dance shoes",
        variants="women's, men's, kids', wide-fit, waterproof",
        materials="canvas, leather, suede, mesh, knit, nubuck, denim, felt",
    ),
    _department(
        "T-shirt, polo shirt, blouse, shirt, sweater, cardigan, hoodie, waistcoat, blazer, jacket, raincoat, parka, "
        "dress, skirt, jeans, trousers, shorts, leggings, jumpsuit, pyjamas",
        variants="women's, men's, kids', maternity, plus-size",
        materials="cotton, linen, wool, fleece, jersey, corduroy, silk, viscose",
    ),
    _department(
        "scarf, shawl, poncho, gloves, mittens, beanie, cap, sun hat, beret, earmuffs, headband, bandana, hair ties, "
        "belt, tie, bow tie, pocket square, socks, knee socks, leg warmers",
        variants="women's, men's, kids', winter, travel",
        materials="wool, cotton, silk, knit, felt, cashmere, velvet, mohair",
    ),
    _department(
        "backpack, rucksack, satchel, messenger bag, laptop bag, briefcase, tote bag, shopping bag, shoulder bag, "
        "clutch, purse, belt bag, wash bag, cosmetics case, garment bag, duffel bag, weekender, suitcase, wallet, "
        "key case",
        variants="mini, travel, work, school, foldable",
        materials="canvas, leather, nylon, suede, felt, denim, cork, raffia",
    ),
    _department(
        "ring, signet ring, stacking rings, earrings, ear studs, hoop earrings, ear cuffs, necklace, pendant, locket, "
        "choker, bracelet, bangle, charm bracelet, anklet, brooch, cufflinks, tie clip, hairpin, watch",
        variants="fine, layered, engraved, children's, bridal",
        materials="silver, gold-plated, rose-gold, steel, titanium, brass, copper, platinum",
        looks="Pearl, Opal, Citrine, Amber, Garnet, Coral, Amethyst, Lapis, Sapphire, Turquoise, Jade, Onyx",
    ),
    _department(
        "coffee table, side table, console table, dining table, desk, bar table, dining chair, armchair, "
        "rocking chair, bar stool, footstool, bench, bookcase, wall shelf, sideboard, TV cabinet, wardrobe, "
        "chest of drawers, bedside table, bed frame",
        variants="small, folding, corner, children's, outdoor",
        materials="oak, walnut, pine, ash, beech, bamboo, rattan, steel",
    ),
    _department(
        "table lamp, desk lamp, reading lamp, bedside lamp, floor lamp, arc lamp, uplighter, pendant light, "
        "chandelier, ceiling light, spotlight bar, wall lamp, picture light, mirror light, night light, "
        "string lights, lantern, garden lamp, path lights, lampshade",
        variants="dimmable, LED, small, rechargeable, smart",
        materials="glass, brass, ceramic, linen, paper, rattan, concrete, chrome",
    ),
    _department(
        "duvet cover, pillowcase, fitted sheet, bedspread, quilt, blanket, throw, cushion cover, floor cushion, "
        "curtain, roller blind, rug, bath mat, bath towel, hand towel, bathrobe, tablecloth, table runner, napkins, "
        "tea towels",
        variants="double, single, extra-soft, washable, summer",
        materials="cotton, linen, wool, velvet, bamboo, flannel, microfibre, jacquard",
    ),
    _department(
        "frying pan, wok, saucepan, stockpot, casserole, roasting tin, baking dish, cake tin, loaf tin, muffin tray, "
        "pizza stone, kettle, colander, mixing bowl, measuring jug, storage jar, lunch box, salt cellar, pepper mill, "
        "serving spoon",
        variants="small, large, stackable, family-size, oven-safe",
        materials="steel, ceramic, enamel, cast-iron, copper, aluminium, stoneware, non-stick",
    ),
    _department(
        "dinner plates, side plates, pasta bowls, soup bowls, cereal bowls, salad bowl, serving dish, cake plate, "
        "egg cups, mugs, espresso cups, tea cups, teapot, coffee pot, milk jug, sugar bowl, tumblers, carafe, vase, "
        "candle holder",
        variants="small, large, hand-painted, stackable, everyday",
        materials="porcelain, stoneware, glass, ceramic, enamel, bamboo, earthenware, crystal",
    ),
    _department(
        "coffee maker, espresso machine, coffee grinder, milk frother, electric kettle, toaster, sandwich maker, "
        "waffle iron, blender, hand mixer, food processor, juicer, slow cooker, rice cooker, air fryer, mini oven, "
        "electric grill, ice cream maker, bread maker, kitchen scales",
        variants="compact, smart, family-size, quiet, travel",
        materials="steel, chrome, matt, glossy, retro, brushed, enamelled, copper",
    ),
    _department(
        "keyboard, number pad, mouse, trackball, mouse pad, laptop riser, laptop sleeve, tablet case, stylus, "
        "monitor arm, webcam, microphone, USB hub, docking station, memory stick, external drive, router, "
        "game controller, headset hook, cable organiser",
        variants="compact, wireless, gaming, travel, ergonomic",
        materials="aluminium, matt, glossy, carbon, soft-touch, silicone, bamboo, metal",
    ),
    _department(
        "phone case, flip case, phone pouch, screen cover, phone grip, phone dock, car mount, bike mount, "
        "phone tripod, charger, charging pad, power bank, charging cable, cable clips, travel adapter, selfie stick, "
        "smartwatch, watch strap, fitness tracker, e-reader cover",
        variants="slim, rugged, magnetic, waterproof, foldable",
        materials="silicone, leather, matt, glossy, fabric, carbon, cork, metal",
    ),
    _department(
        "headphones, earbuds, earphones, headset, bluetooth speaker, bookshelf speaker, soundbar, subwoofer, "
        "party speaker, shower radio, table radio, clock radio, record player, CD player, amplifier, music streamer, "
        "tape deck, karaoke machine, speaker shelf, record box",
        variants="wireless, portable, compact, studio, vintage",
        materials="matt, glossy, walnut, aluminium, fabric, metal, bamboo, leather",
    ),
    _department(
        "acoustic guitar, electric guitar, bass guitar, ukulele, mandolin, banjo, violin, cello, recorder, flute, "
        "clarinet, ocarina, harmonica, melodica, accordion, cajon, bongos, hand drum, xylophone, metronome",
        variants="student, travel, children's, stage, left-handed",
        materials="maple, mahogany, spruce, birch, rosewood, bamboo, ebony, brass",
    ),
    _department(
        "building blocks, marble run, train set, race track, toy car, toy tractor, toy plane, spinning top, "
        "jigsaw puzzle, memory game, board game, domino set, dolls' house, doll, teddy bear, hand puppet, "
        "play kitchen, tea set, toy farm, rocking horse",
        variants="mini, giant, musical, travel, first",
        materials="wooden, plush, felt, tin, magnetic, foam, recycled, cardboard",
    ),
    _department(
        "bodysuit, romper, sleepsuit, baby sleeping bag, swaddle, bib, burp cloths, hooded towel, baby blanket, "
        "cot sheet, cot bumper, play mat, changing mat, nappy bag, baby carrier, pushchair cover, pushchair liner, "
        "nursing pillow, comforter, baby hat",
        variants="newborn, toddler, twin, travel, quilted",
        materials="cotton, muslin, fleece, bamboo, wool, jersey, organic, terry",
    ),
    _department(
        "yoga mat, yoga block, pilates ring, exercise ball, massage roller, massage ball, resistance band, "
        "skipping rope, dumbbells, kettlebell, weight plates, barbell, weight vest, ankle weights, push-up bars, "
        "pull-up bar, ab wheel, balance board, boxing gloves, punch bag",
        variants="beginner's, training, travel, competition, heavy",
        materials="foam, rubber, cork, neoprene, steel, cotton, leather, vinyl",
    ),
    _department(
        "bike helmet, cycling gloves, cycling jersey, cycling shorts, bike saddle, saddle cover, handlebar grips, "
        "handlebar tape, bike bell, bike light, bike lock, bike pump, bottle cage, water bottle, pannier, frame bag, "
        "bike basket, mudguards, pedals, bike rack",
        variants="road, mountain, city, children's, touring",
        materials="alloy, carbon, nylon, leather, steel, rubber, mesh, reflective",
    ),
    _department(
        "tent, tarp, sleeping bag, sleeping mat, hammock, camping pillow, camping chair, camping table, camp stove, "
        "mess tin, camping mug, flask, cool box, head torch, trekking poles, dry bag, picnic blanket, windbreak, "
        "camping shower, mosquito net",
        variants="one-person, family, ultralight, winter, folding",
        materials="nylon, canvas, down, ripstop, aluminium, steel, fleece, recycled",
    ),
    _department(
        "plant pot, planter, window box, raised bed, seed tray, watering can, spray bottle, hand trowel, hand fork, "
        "garden rake, garden hoe, spade, plant labels, trellis, plant shelf, compost bin, bird feeder, bird bath, "
        "nesting box, garden bench",
        variants="small, large, balcony, hanging, children's",
        materials="terracotta, zinc, wooden, steel, wicker, plastic, ceramic, bamboo",
    ),
    _department(
        "hammer, mallet, screwdriver set, hex keys, spanner set, socket set, pliers, wire cutters, hand saw, "
        "wood chisel, hand plane, utility knife, tape measure, spirit level, clamp, cordless drill, drill bits, "
        "sander, staple gun, tool box",
        variants="precision, compact, heavy-duty, beginner's, left-handed",
        materials="steel, chrome, titanium, forged, carbon-steel, insulated, magnetic, rubber-grip",
    ),
    _department(
        "seat cover, seat cushion, steering wheel cover, floor mats, boot mat, boot organiser, seat organiser, "
        "sunshade, windscreen cover, car cover, roof bag, tow rope, key cover, gear knob, headrest, car bin, "
        "dog guard, armrest, phone holder, ice scraper",
        variants="universal, front, rear, winter, compact",
        materials="leather, fabric, mesh, rubber, nylon, velour, neoprene, carbon",
    ),
    _department(
        "dog bed, dog blanket, dog collar, dog lead, dog harness, dog coat, dog toy, feeding mat, food bag, "
        "treat pouch, cat bed, cat tunnel, scratching post, cat collar, cat toy, cat basket, pet carrier, "
        "hamster house, rabbit tunnel, bird swing",
        variants="puppy, small-breed, large-breed, indoor, travel",
        materials="cotton, leather, nylon, plush, wicker, rope, felt, fleece",
    ),
    _department(
        "notebook, sketchbook, diary, planner, address book, photo album, ring binder, folder, document case, "
        "clipboard, pencil case, pen holder, letter tray, desk mat, bookmark, gift wrap, greeting cards, envelopes, "
        "sticky notes, calendar",
        variants="pocket, large, desk, school, undated",
        materials="leather, linen, recycled, kraft, marbled, cork, felt, matt",
    ),
    _department(
        "hand cream, body lotion, body oil, body scrub, shower gel, bath salts, bath bombs, soap, shampoo, "
        "conditioner, hair mask, hair oil, face wash, face cream, face mask, face serum, lip balm, deodorant, "
        "shaving foam, scented candle",
        variants="sensitive, men's, children's, travel-size, night",
        materials="organic, vegan, nourishing, gentle, mineral, refreshing, handmade, intense",
        looks="Coconut, Vanilla, Honey, Citrus, Ginger, Rose, Peony, Lavender, Sea-salt, Eucalyptus, Mint, Cedar",
    ),
)
